"""Tables and plots of runs.

    python -m rnnx.report --workdir=DIR[,DIR...] [--table=rhn_depth|mi_char|gaps|...]

DIR is a workdir of rnnx.train or rnnx.sweep, or any folder of them; or a data file that --export
wrote. Prints the table, and writes to --out (the first DIR's `report`) it as table.md and
table.csv, and learning curves and quality against parameters, training time and a swept number as
PNG. Runs that differ in nothing but their seed are one row: mean ± standard deviation. Published
numbers, where a table has them, stand in columns of their own: (c) as another paper quotes it,
~ recalled and not re-read, else from the authors' own code.

--table=gaps --against="integration=additive" compares every network with the one that has these
values and agrees in all else but what was tuned. It shows the gap in test score with its 95 %
interval over seeds, and after how many epochs each is as good as the other ever is. With
--protocol=transfer, or another of rnnx.evaluate, it shows the gap in each score of that protocol,
from each run's last evaluation of the test split.

--html writes instead one page, report/status.html, that opens without a network: what runs, what is
finished, the curves so far, the expected end. --watch does so every ten seconds until all runs have
ended, and the page in a browser follows. Both only read, from any machine that sees the folders.
"""

import time
from pathlib import Path

from absl import flags
from matplotlib.figure import Figure

from rnnx import cli, workdir
from rnnx.display import console
from rnnx.errors import UserError, writing
from rnnx.report import live, plots
from rnnx.report.gaps import gap_curves, gaps, gaps_table
from rnnx.report.protocols import protocol_table
from rnnx.report.runs import Run, read, to_file
from rnnx.report.state import overview
from rnnx.report.table import Table
from rnnx.report.tables import TABLES

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list("workdir", None, "folders of runs, or data files of them", required=True)
    flags.DEFINE_enum("table", "runs", [*TABLES, "gaps"], "which table")
    flags.DEFINE_string("against", "", "FIELD=VALUE;...: the baseline of --table=gaps")
    flags.DEFINE_string("protocol", "", "of --table=gaps: the scores of rnnx.evaluate by this one")
    flags.DEFINE_string("out", "", "where tables and plots go; empty: the first workdir's report")
    flags.DEFINE_bool("html", False, "write a page that shows how the runs stand, no tables")
    flags.DEFINE_bool("watch", False, "as --html, again and again until all runs have ended")
    flags.DEFINE_string("export", "", "also write the runs to this data file (JSON)")


def write(table: Table, figures: dict[str, Figure], out: Path) -> list[Path]:
    """Writes a table and plots; returns the files.

    Raises:
      Outage: when out can't be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / "table.md").write_text(table.markdown(), encoding="utf-8")
        (out / "table.csv").write_text(table.csv(), encoding="utf-8")
        files = [out / "table.md", out / "table.csv"]
        for name, figure in figures.items():
            files.append(out / f"{name}.png")
            figure.savefig(files[-1], dpi=160)
    return files


def drawn(runs: list[Run], searches: bool = False) -> dict[str, Figure]:
    """Every plot that runs allow, by name; searches: the runs of a network are trials of one."""
    figures: dict[str, Figure | None] = {}
    if any(run.valid for run in runs):
        figures["curves"] = plots.learning_curves(runs)
        figures["seconds"] = plots.against_seconds(runs)
    if any(run.complete for run in runs):
        figures["parameters"] = plots.against_parameters(runs)
        figures["swept"] = (plots.searches if searches else plots.against_field)(runs)
    return {name: figure for name, figure in figures.items() if figure is not None}


def show_state(paths: list[Path], out: Path, watch: bool) -> None:
    """Writes the page of how runs stand; watch: until all have ended.

    Raises:
      UserError: when a path is no folder.
      Outage: when the page can't be written.
    """
    if files := [path for path in paths if not path.is_dir()]:
        raise UserError(f"{files[0]} is no folder: --html and --watch show folders of runs")
    screen, told = console(wide=True), ""
    while True:
        found = overview(paths)
        over = found.over or not watch
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            page = live.page(found, paths[0].resolve().name, 0 if over else live.SECONDS)
            workdir.write_text(out / "status.html", page)
        if not told:
            screen.print(f"page: {out / 'status.html'}", soft_wrap=True)
        if (line := found.sentence()) != told:  # the expected end changes all the time
            screen.print(f"{time.strftime('%H:%M:%S')} {live.sentence(found)}", soft_wrap=True)
            told = line
        if over:
            return
        time.sleep(live.SECONDS)


def main() -> None:
    paths = [Path(path).expanduser() for path in FLAGS.workdir]
    if FLAGS.html or FLAGS.watch:
        show_state(paths, Path(FLAGS.out or paths[0] / "report").expanduser(), FLAGS.watch)
        return
    runs = read(paths)
    units = sorted({run.unit.name for run in runs})
    if len(units) > 1:
        raise UserError(f"runs in {' and '.join(units)} share no unit: report them apart")
    first = paths[0] if paths[0].is_dir() else paths[0].parent
    out = Path(FLAGS.out).expanduser() if FLAGS.out else first / "report"
    screen = console(wide=True)
    if (FLAGS.table == "gaps") != bool(FLAGS.against):
        raise UserError("--table=gaps and --against=FIELD=VALUE;... go together")
    if FLAGS.protocol and not FLAGS.against:
        raise UserError("--protocol is for --table=gaps")
    figures = drawn(runs, FLAGS.table == "optimization")
    if FLAGS.against:
        found = gaps(runs, FLAGS.against)
        if FLAGS.protocol:
            table = protocol_table(found, FLAGS.protocol, FLAGS.against)
        else:
            table = gaps_table(found, FLAGS.against)
        figures |= {"gaps": figure} if (figure := gap_curves(found)) else {}
    else:
        table = TABLES[FLAGS.table](runs)
    screen.print(table.rich())
    if table.note:
        screen.print(table.note, soft_wrap=True)
    unfinished = sum(not run.complete for run in runs)
    if unfinished:
        screen.print(f"{unfinished} of {len(runs)} runs are not complete")
    files = write(table, figures, out)
    if FLAGS.export:
        to_file(runs, Path(FLAGS.export))
        files.append(Path(FLAGS.export))
    screen.print(f"written: {', '.join(str(path) for path in files)}", soft_wrap=True)


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
