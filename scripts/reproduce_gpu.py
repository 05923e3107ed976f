"""Trains the papers' networks on one accelerator that is there for minutes at a time.

    scripts/reproduce-gpu pack FOLDER             what the machine lacks: corpora and wheels
    scripts/reproduce-gpu STAGE --workdir=DIR     one stage; the same command continues it
    scripts/reproduce-gpu join PIECE... --workdir=DIR

The stages:
    check   the tests that matter on an accelerator; ms an update with each setting; the bench
    word    RHN L = 10, n = 830 on Penn Treebank words, then `full` and `mc`
    char    MI-RNN and RNN of 2,048 units on its characters, half of the time each
    depth   L = 1 to 10 at 3M parameters and 20 epochs, the seeds of each depth at once

A stage ends by itself within --minutes; what is to be kept is in DIR/out/STAGE: the runs as a data
file for notebooks/results, what was measured, and the parameters as float16 in pieces of 15 MiB.
`join` makes of those pieces a workdir for `rnnx.evaluate` and `rnnx.sample`; its parameters are
rounded, and it can't be trained on.
"""

import argparse
import json
import math
import os
import signal
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import gpu_pack
from gpu_stage import BEGUN, END, GRACE, SETTINGS, STOPPED, Stage, schedule

from rnnx.errors import UserError

PIECE = 15 << 20  # bytes


def check(stage: Stage) -> str:
    """The tests, every setting's speed, and the bench; those that are done are not repeated."""
    tests = stage.measured["tests"]
    for name, arguments, env in stage.scale.checks:
        if name in tests or stage.left() < END:
            continue
        path = stage.folder / "junit.xml"
        path.unlink(missing_ok=True)
        # The tests choose the CPU unless a variable says else; empty: what JAX finds.
        env = {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "")} | env
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={path}"]
        if stage.run(*command, *arguments, seconds=stage.left(), **env) < 0 or not path.exists():
            break  # out of time
        tests[name] = _told(path)
        stage.save()
    stage.trial(stage.scale.word, stage.scale.settings, stage.left())
    for case in stage.scale.bench:
        path = stage.out / f"gpu_bench_{case.split('=')[-1]}.json"
        if not path.exists() and stage.left() > END:
            stage.run("-m", "rnnx.bench", *case.split(), f"--out={path}", seconds=stage.left())
    rows = [row for row in stage.measured["trials"][stage.scale.word] if row["ms"] is not None]
    speed = ", ".join(f"{row['ms']:.2f} ms {row['setting']}" for row in rows)
    failed = [test for told in tests.values() for test in told["failed"]]
    passed = sum(told["passed"] for told in tests.values())
    bad = f", failed {', '.join(failed)}" if failed else ""
    return f"{len(tests)} of {len(stage.scale.checks)} groups, {passed} tests passed{bad}; {speed}"


def _told(path: Path) -> dict:
    """How many tests passed, and which did not, by pytest's report."""
    cases = list(ElementTree.parse(path).iter("testcase"))
    failed = [c.get("name") for c in cases if {"failure", "error"} & {part.tag for part in c}]
    skipped = sum(c.find("skipped") is not None for c in cases)
    return {"passed": len(cases) - len(failed) - skipped, "skipped": skipped, "failed": failed}


def word(stage: Stage) -> str:
    """The word model: as many epochs as fit, then `full` (of the training command) and `mc`."""
    scale, run = stage.scale, stage.folder / "rhn"
    best = stage.fastest()
    plan = stage.plan(scale.word, [best] if best else scale.settings, scale.word_epochs, 1.0, 1.5)
    flat, decay = schedule(plan["epochs"], scale.word_epochs)
    fields = [f"--config.epochs={plan['epochs']}", f"--config.flat_epochs={flat}"]
    fields.append(f"--config.lr_decay={decay}")
    _train_planned(stage, scale.word, run, plan, stage.left(), *fields)
    done = run / "evaluations.jsonl"
    for split in ("valid", "test") if (run / "result.json").exists() else ():
        lines = done.read_text().splitlines() if done.exists() else ()
        if split in [json.loads(line)["split"] for line in lines] or stage.left() < 1:
            continue
        command = [f"--workdir={run}", f"--split={split}", "--protocol=mc"]
        command.append(f"--max_tokens={scale.tokens}")
        stage.run("-m", "rnnx.evaluate", *command, seconds=stage.left())
    if done.exists():
        stage.measured["mc"] = list(map(json.loads, done.read_text().splitlines()))
    told = _tell(stage, run)
    mc = "".join(f", mc {line['split']} {line['ppl']:.2f}" for line in stage.measured.get("mc", ()))
    return f"{plan['ms']:.2f} ms an update ({plan['setting']}); {told}{mc}"


def char(stage: Stage) -> str:
    """MI-RNN and RNN, half of the time each, in float32 products both."""
    setting = stage.fastest("float32") or SETTINGS[1]
    runs = [stage.folder / name for name in ("mi_rnn", "rnn")]
    plans = []
    for i, (config, run) in enumerate(zip(stage.scale.char, runs, strict=True)):
        half = (stage.seconds - END) / 2 - (time.monotonic() - BEGUN)
        seconds = stage.left() if i or (run / "result.json").exists() else half
        plan = stage.plan(config, [setting], stage.scale.char_epochs, 0.5, 0.5)
        plans.append(plan)
        _train_planned(stage, config, run, plan, seconds, f"--config.epochs={plan['epochs']}")
    speed = ", ".join(f"{plan['ms']:.2f} ms" for plan in plans)
    return f"{speed} an update ({setting.name}); {_tell(stage, *runs)}"


def depth(stage: Stage) -> str:
    """A sweep of the depths, the seeds of each as one program, as far as the time goes."""
    scale, setting = stage.scale, stage.fastest("float32") or SETTINGS[1]
    epochs, flat = scale.depth_epochs
    fields = [f"--config.epochs={epochs}", f"--config.flat_epochs={flat}"]
    fields += [f"--grid=depth={','.join(map(str, scale.depths))}"]
    fields += [f"--seeds={scale.seeds}", f"--replicas={scale.seeds}"]
    folder = stage.folder / "sweep"
    if stage.left() >= 1:
        _check_code(
            stage.train(scale.small, folder, setting, stage.left(), *fields, module="rnnx.sweep")
        )
        trials = json.loads((folder / "progress.json").read_text())["trials"]
        if failed := [name for name, (state, _) in trials.items() if state == "failed"]:
            raise UserError(f"{', '.join(failed)} failed: see {folder / 'logs'}")
    total = len(scale.depths) * scale.seeds
    return f"({setting.name}) {_tell(stage, folder, pieces=False, total=total)}"


def _train_planned(
    stage: Stage, config: str, run: Path, plan: dict, seconds: float, *fields: str
) -> None:
    """Trains, or resumes, a run with the setting of its plan, unless it is complete."""
    if not (run / "result.json").exists() and stage.left() >= 1:
        setting = next(s for s in SETTINGS if s.name == plan["setting"])
        _check_code(stage.train(config, run, setting, seconds, *fields))


def _check_code(code: int) -> None:
    """Goes on when a run is complete or was stopped in time. Raises UserError otherwise."""
    if code not in (0, *STOPPED):
        raise UserError(f"training ended with exit code {code}: see the lines above")


def _tell(stage: Stage, *runs: Path, pieces: bool = True, total: int = 0) -> str:
    """Writes what is to be kept of runs, or of a sweep of so many, and says how far they are."""
    stage.save()
    told = []
    for record in stage.export(*runs):
        config, scores = record["config"], record["scores"]
        epochs = config.get("epochs", 10)  # the default is not written
        shown = (lambda nll: math.exp(nll)) if config.get("level") == "word" else _bits
        best = min(record["valid"], default=math.nan)
        score = f"valid {shown(best):.4g} (batched)"
        if scores:
            score = ", ".join(f"{split} {shown(nll):.4g}" for split, nll in scores.items())
        told.append(f"{record['name']} {len(record['epoch'])} of {epochs} epochs, {score}")
        run = next((run for run in runs if run.name == record["name"]), None) if pieces else None
        if run and (run / "checkpoints" / "best").is_dir():
            seconds = max(BEGUN + stage.seconds - time.monotonic(), GRACE)
            half = stage.folder / f"{run.name}.npz"
            if stage.run(gpu_pack.__file__, str(run), str(half), seconds=seconds,
                         JAX_PLATFORMS="cpu") == 0:  # fmt: skip
                gpu_pack.split(run, half, stage.out, PIECE)
    total = total or len(runs)
    results = ("result.json", "trials/*/result.json")
    unfinished = total - sum(len(list(run.glob(path))) for run in runs for path in results)
    if unfinished:
        told.append(f"{unfinished} of {total} runs to do: the same command continues")
    return "; ".join(told)


def _bits(nll: float) -> float:
    return nll / math.log(2)


# ---------------------------------------------------------------------------- command line

STAGES = {"check": check, "word": word, "char": char, "depth": depth}


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "reproduce-gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="stage", required=True)
    pack = verbs.add_parser("pack", help="fill a folder with corpora and wheels")
    pack.add_argument("folder")
    pack.add_argument("--data_dir", default=os.environ.get("RNNX_DATA", ""), help="the corpora")
    pack.add_argument("--python", default="3.12", help="the machine's Python")
    pack.add_argument("--platform", default=",".join(gpu_pack.PLATFORMS), help="as pip names it")
    pack.add_argument("--there", default=",".join(gpu_pack.THERE), help="packages it has")
    join = verbs.add_parser("join", help="make a workdir of what came back")
    join.add_argument("pieces", nargs="+")
    join.add_argument("--workdir", required=True)
    for name, stage in STAGES.items():
        verb = verbs.add_parser(name, help=stage.__doc__.splitlines()[0])
        verb.add_argument("--workdir", default="runs/gpu", help="of all stages")
        verb.add_argument("--minutes", type=float, default=9.0, help="of this call")
        verb.add_argument("--calls", type=int, default=1, help="plan for so many such calls")
        verb.add_argument("--packed", help="the folder that `pack` filled")
        verb.add_argument("--tiny", action="store_true", help="small networks, about a minute")
    return parser.parse_args(arguments)


def main() -> None:
    args = parsed(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if args.stage == "pack":
            folder, data = Path(args.folder).expanduser(), Path(args.data_dir).expanduser()
            there, platforms = args.there.split(","), args.platform.split(",")
            for line in gpu_pack.pack(folder, data, args.python, platforms, there):
                print(line)
        elif args.stage == "join":
            gpu_pack.join([Path(piece) for piece in args.pieces], Path(args.workdir).expanduser())
        else:
            stage = Stage(args)
            told = STAGES[args.stage](stage)
            seconds = time.monotonic() - BEGUN
            print(f"{args.stage}: {told}; {stage.measured['device']}, {seconds:.0f} s; {stage.out}")
    except UserError as error:
        print(f"reproduce-gpu: error: {error}", file=sys.stderr)
        sys.exit(error.code)


if __name__ == "__main__":
    main()
