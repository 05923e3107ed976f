"""Trains many runs of one config: every combination of a grid, or a search for the best.

    python -m rnnx.sweep --config=FILE --workdir=DIR --grid="depth=1,2,4;integration=additive,mi"
    python -m rnnx.sweep --config=FILE --workdir=DIR --trials=30 \\
        --search="learning_rate=log:1e-4..1e-2;drop_h=0..0.5"

With neither, the sweep that the config file itself holds is run: its function
`sweep(config, add)` calls `add(depth=4, hidden_size=1050)` for each run.

--grid        every combination once; --seeds=K repeats all of them with K seeds
--search      a..b uniform, log:a..b uniform in the logarithm, a,b,c a choice; proposed by
              Optuna's TPE from the valid scores so far, and stopped early when an epoch's valid
              score is worse than the median of the others' at that epoch
--tune        tunes every point of a grid first, over a space written as for --search: each with the
              same --trials points, spread evenly over the space, of --tune_epochs epochs. The best
              on valid is then trained with --seeds seeds, which tuning has not used
--known       data files of rnnx.report --export: runs that they hold are not done again
--replicas    how many trials each process trains as one program, each with its own workdir and
              numbers: those that differ in seed, learning rate and its schedule, and initial
              values alone. Small networks leave most of a GPU idle; on a CPU this is slower
--config.X    as in rnnx.train, for all runs

Each trial is the workdir of an ordinary `rnnx.train` in DIR/trials, its output in DIR/logs; the
record of all is an Optuna study. The same command resumes a sweep: interrupted trials are
continued, and a grid may have grown. The same command may run several times at once, on one
machine, or on several with --storage=postgresql://USER@HOST/NAME, whether they share DIR or not:
no trial is run twice, and that of a machine that has vanished is taken up by another within two
minutes. On a machine with several GPUs, start it once for each, with CUDA_VISIBLE_DEVICES.
"""

import runpy
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from rnnx import cli, tasks, workdir
from rnnx import config as configs
from rnnx.display import Display
from rnnx.errors import UserError
from rnnx.report.runs import read as read_runs
from rnnx.sweep import space
from rnnx.sweep.ledger import Ledger, Plan, in_reach
from rnnx.sweep.runner import Runner
from rnnx.sweep.screen import Screen
from rnnx.sweep.space import Overrides
from rnnx.sweep.tuning import Tuning, known_points, trials_of, tuned

FLAGS = flags.FLAGS


def own_sweep(path: str, config: ConfigDict) -> list[Overrides]:
    """The points that a config file's own `sweep(config, add)` names.

    Raises:
      UserError: when it has none.
    """
    points: list[Overrides] = []
    file = configs.config_file(path).partition(".py:")[0].removesuffix(".py") + ".py"
    function = runpy.run_path(file).get("sweep")
    if function is None:
        raise UserError(f"{path} holds no sweep(config, add): name one with --grid or --search")
    function(config, lambda **point: points.append(point))
    if not points:
        raise UserError(f"the sweep of {path} adds no runs")
    return points


def refuse_impossible(config: ConfigDict, points: list[Overrides]) -> None:
    """Raises UserError when no point can be run. One of several fails in its turn."""
    for point in points:
        one = config.copy_and_resolve_references()
        with one.unlocked():
            one.update(point)
        try:
            configs.validate(one)
        except UserError as error:
            last = UserError(f"{space.label(point)}: {error}")
        else:
            return
    raise last


# ---------------------------------------------------------------------------- command line


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "experiment: NAME or FILE.py, with :variant")
    flags.DEFINE_string("workdir", None, "where the runs are kept; continued if it holds a sweep")
    flags.DEFINE_string("grid", "", "FIELD=A,B;FIELD=C,D: every combination")
    flags.DEFINE_string("search", "", "FIELD=A..B;FIELD=log:A..B;FIELD=A,B,C: search")
    flags.DEFINE_string("tune", "", "FIELD=A..B;...: tune each point of the grid first")
    flags.DEFINE_integer("trials", 0, "how many the search, or --tune, tries", lower_bound=0)
    flags.DEFINE_integer("tune_epochs", 0, "of a trial of --tune; 0: as a run", lower_bound=0)
    flags.DEFINE_integer("seeds", 1, "repeat a grid with so many seeds", lower_bound=1)
    flags.DEFINE_list("known", [], "data files of runs that are not done again")
    flags.DEFINE_integer("param_budget", 0, "solve every run's width for it", lower_bound=0)
    flags.DEFINE_integer("workers", 1, "runs side by side; they share the cores", lower_bound=1)
    flags.DEFINE_integer("replicas", 1, "trials trained as one program, see above", lower_bound=1)
    flags.DEFINE_string("storage", "", "address of a database; empty: SQLite in the workdir")


def plan_of(values: flags.FlagValues) -> Plan:
    """What the command line asks for.

    Raises:
      UserError: when flags contradict each other, or name what configs don't have.
    """
    if values.config is None:
        raise UserError("--config=FILE is missing, for example --config=ptb_word:small")
    if not values.workdir:
        raise UserError("--workdir=DIR is missing: the folder to keep the runs in")
    if values.grid and values.search:
        raise UserError("--grid and --search are two sweeps: name one of them")
    if values.search and values.tune:
        raise UserError("--search looks for one best run: leave --tune, which serves a grid, out")
    if bool(values.search or values.tune) != bool(values.trials):
        raise UserError("--search=... or --tune=... and --trials=N go together")
    if values.tune_epochs and not values.tune:
        raise UserError("--tune_epochs is for --tune=...")
    if values.search and values.replicas > 1:
        raise UserError("--replicas is for a grid: a search stops its runs one by one")
    if values.search and values.known:
        raise UserError("--known is for a grid: a search proposes its own points")
    if values.search and values.seeds > 1:
        raise UserError("--seeds repeats a grid: search first, then repeat what it found")
    config, handle = values.config, values["config"]
    if values.param_budget:
        config.param_budget = values.param_budget
    configs.validate(config)
    path = config_flags.get_config_filename(handle)  # as typed, with its variant
    overrides = config_flags.get_override_values(handle)
    if values.param_budget:
        overrides = overrides | {"param_budget": values.param_budget}
    arguments = [f"--config={path}", *(space.flag(n, v) for n, v in overrides.items())]
    if values.search:
        return Plan(config, arguments, space=space.search(values.search), trials=values.trials)
    points = space.grid(values.grid) if values.grid else own_sweep(path, config)
    points = [space.checked(point) for point in points]
    refuse_impossible(config, points)
    if config.param_budget and any("hidden_size" in point for point in points):
        raise UserError("param_budget solves hidden_size: it can't be swept beside it")
    if any("seed" in point for point in points) and values.seeds > 1:
        raise UserError("the seed is in the grid: leave --seeds out")
    if values.seeds > 1 or (values.tune and not any("seed" in point for point in points)):
        first = config.seed + bool(values.tune)  # the seed of tuning has been looked at
        points = space.repeated(points, range(first, first + values.seeds))
    return Plan(config, arguments, points=points)


def main() -> None:
    plan = plan_of(FLAGS)
    folder = Path(FLAGS.workdir).expanduser()
    workdir.check_path(folder)
    if FLAGS.tune:
        epochs = FLAGS.tune_epochs or plan.config.epochs
        tuning = Tuning(space.search(FLAGS.tune), FLAGS.trials, epochs)
        trials = trials_of(plan, tuning)
    known = read_runs([Path(path).expanduser() for path in FLAGS.known]) if FLAGS.known else []
    config = plan.config
    # Missing data should be reported once, not by every trial.
    task = tasks.of(config)
    task.check(config)
    shown = config.copy_and_resolve_references()
    shown.update(task.load(config, Display().print).fields)
    unit = task.unit(shown)

    def run(folder: Path, plan: Plan, name: str = "") -> Ledger:
        plan.known = known_points(plan, known)
        ledger = Ledger(folder, plan, FLAGS.storage, name)
        Runner(ledger, FLAGS.workers, Screen(ledger, unit), FLAGS.replicas).run()
        return ledger

    with in_reach(folder):
        if FLAGS.tune:
            # In a database of several sweeps the folder's own name would not tell them apart.
            name = f"{folder.resolve().name}.tune" if FLAGS.storage else ""
            ledger = run(folder / "tune", trials, name)
            plan = tuned(plan, tuning, [(t, ledger.point(t)) for t in ledger.ended()])
        run(folder, plan)


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
