"""Measures training and inference on this machine, beside textbook JAX and PyTorch.

    python -m rnnx.bench [--quick] [--cases=rhn,lstm] [--shapes] [--out=bench.json]

Rivals do the same work from the same parameters, each in its own process; they take turns, and
medians are shown. `of bound` is the share of what this machine allows: each phase's matrix products
at the rate of a square float32 product or its weights at the rate of reading memory, whichever
takes longer, both measured in the same run. bfloat16 can exceed it, and at batch 1 so can a
processor whose caches keep part of the weights. Every row names the processor it was measured on:
machines of one cloud differ in it. A call has as many windows as training would give it, or, as
`one window`, one. PyTorch is used if it is installed. The cases step and step_lstm time every call
of an exported network by itself. --shapes measures, instead of rivals, how time and memory grow
with batch, window, width and depth.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import statistics
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
from absl import flags
from rich.table import Table

from rnnx import cli, native, workdir
from rnnx.bench import cases, growth, latency
from rnnx.bench.cases import CASES, LONG, QUICK, Case
from rnnx.bench.machine import Rates, processor, row_of
from rnnx.bench.rivals import Rival, in_turns
from rnnx.data.sequences import RUN
from rnnx.display import Display
from rnnx.errors import UserError

FLAGS = flags.FLAGS
FORMAT = 1  # of the JSON


def rivals_of(case: Case, bound: float, quick: bool) -> Iterator[Rival]:
    """All implementations of a case's work, ours first."""
    name = f"rnnx.bench.ours.{case.kind}"
    if case.speech:
        # Of sequences, a call has batches of one length, which come in runs.
        windows = min(windows_together(bound), RUN) if case.kind == "train" else 1
        several = {"windows": windows, "units": windows} if windows > 1 else {}
        yield Rival("rnnx", name, case, **several)
        yield Rival("torch nn.LSTM", f"rnnx.bench.speech_in_torch.{case.kind}", case)
        return
    if case.kind == "splits":
        yield Rival("rnnx", name, case)
        yield Rival("rnnx, one by one", name, case, apart=True)
        return
    if case.kind != "train":
        yield Rival("rnnx", name, case)
    else:
        windows = windows_together(bound)
        yield Rival("rnnx", name, case, windows=windows, units=windows)
        if windows > 1:
            yield Rival("rnnx, one window", name, case)
        if native.tile_width():
            off = {"RNNX_NATIVE": "0"}
            yield Rival(
                "rnnx, XLA alone", name, case, windows=windows, units=windows, environment=off
            )
        if native.bfloat16():
            rounded = dataclasses.replace(case, fields=(*case.fields, ("dtype", "bfloat16")))
            yield Rival("rnnx, bfloat16", name, rounded, windows=windows, units=windows)
        yield Rival("plain scan", "rnnx.bench.plain.train", case)
    name = f"rnnx.bench.in_torch.{case.kind}"
    fields = dict(case.fields)
    if layer := {"lstm": "LSTM", "gru": "GRU"}.get(fields["cell"]):
        additive = dataclasses.replace(
            case, fields=tuple((fields | {"integration": "additive"}).items())
        )
        yield Rival(f"torch nn.{layer}", name, additive, form="layer")
        if additive.config.integration == case.config.integration:
            return
    yield Rival("torch, addmm", name, case, form="addmm")
    yield Rival("torch, linear", name, case, form="linear")
    if not quick:
        yield Rival("torch.compile", name, case, form="addmm", compiled=True)


def windows_together(bound: float) -> int:
    """How many windows a call `rnnx.train` would choose, by an update's bound in seconds."""
    windows, seconds = 1, bound / 0.7  # about the share of the bound that updates reach
    while windows < 32 and windows * seconds < 1.0:
        windows *= 2
    return windows


def compete(case: Case, rates: Rates, turns: int, display: Display) -> list[dict]:
    """Measures all rivals of a case, turn by turn, and prints their table."""
    rates.begin()
    rates.turn()
    about = cases.bound(case, rates.flops, rates.bytes)
    rivals = []
    try:
        for rival in rivals_of(case, about, turns < 3):
            # One at a time: compilers would slow each other down, and need memory.
            display.start(f"{case.label}: {rival.name} compiles", 1)
            rival.await_ready()
            rivals.append(rival)
        display.start(case.label, turns)
        rates.begin()
        for turn in range(turns):
            rates.turn()
            for rival in rivals:
                rival.turn()
            display.update(turn + 1)
    finally:
        display.finish()
        for rival in rivals:
            rival.close()
    rows = [row_of(rival, case, rates) for rival in rivals]
    same_work(rows, case)
    display.print(table_of(case, rows))
    if case.sound and not rows[0]["failed"]:
        display.print(pace_of(case, rows[0]["seconds"]))
    display.print(
        f"machine: product {rates.flops / 1e9:,.0f} GFLOP/s, reading {rates.bytes / 1e9:,.1f} GB/s"
    )
    for reason in dict.fromkeys(row["failed"] for row in rows if row["failed"]):
        names = ", ".join(row["rival"] for row in rows if row["failed"] == reason)
        display.print(f"without {names}: {reason}")
    return rows


def same_work(rows: list[dict], case: Case) -> None:
    """Marks rivals as failed whose losses, logits or tokens differ from ours: they did other work.

    The additive nn.LSTM or nn.GRU may differ from an MI cell: it is known to do less. Operands in
    bfloat16 are rounded by up to 1 in 256, and updates at a high rate magnify that.
    """
    ours = rows[0]
    for row in rows[1:]:
        less = row["rival"].startswith("torch nn.") and case.config.integration != "additive"
        if ours["failed"] or row["failed"] or less:
            continue
        rtol = 4e-3 if row["rival"].endswith("bfloat16") else 1e-3
        if not np.allclose(row["told"], ours["told"], rtol=rtol):
            row["failed"] = f"other results: {row['told']}, ours {ours['told']}"


def table_of(case: Case, rows: list[dict]) -> Table:
    """A case's rows; `ours is` says how many times faster rnnx is than each rival."""
    unit = {"train": "update", "token": "token", "hear": "utterance"}.get(
        case.kind, f"{case.tokens} tokens"
    )
    table = Table(title=case.label, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column(f"ms for: {unit}", width=18)
    for heading, width in (("ms", 7), ("tokens/s", 8), ("GFLOP/s", 7), ("of bound", 8),
                           ("ours is", 7), ("first s", 7), ("GB", 4), ("CPU", 5)):  # fmt: skip
        table.add_column(heading, justify="right", min_width=width, no_wrap=True)
    for row in rows:
        if row["failed"]:
            continue
        ratio = "" if rows[0]["failed"] else f"{row['seconds'] / rows[0]['seconds']:.2f}x"
        table.add_row(
            row["rival"],
            f"{row['seconds'] * 1e3:,.4g}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['gflops']:,.4g}",
            f"{row['of_bound']:.2f}",
            ratio if row is not rows[0] else "",
            f"{row['first_seconds']:.1f}",
            f"{row['peak_bytes'] / 1e9:.2f}",
            row["cpu"],
        )
    return table


def pace_of(case: Case, seconds: float) -> str:
    """What seconds for a unit of work mean in sound."""
    if case.kind == "train":
        return f"rnnx: {case.sound / seconds:,.0f} hours of sound trained in an hour"
    return f"rnnx: {case.sound:.0f} s of sound, real-time factor {seconds / case.sound:.5f}"


def long_window(display: Display) -> dict:
    """Trains one window of 2,000 steps and says how much memory it took."""
    rival = Rival("rnnx", "rnnx.bench.ours.train", LONG)
    display.start(LONG.label, 1)
    rival.await_ready()
    rival.turn(0.0)
    display.finish()
    rival.close()
    row = {"case": "long", "label": LONG.label, "cpu": processor(), "failed": rival.failed}
    if rival.failed:
        display.print(f"{LONG.label}: {rival.failed}")
    else:
        row |= {"seconds": rival.seconds[0], "peak_bytes": rival.peak_bytes}
        display.print(
            f"{LONG.label} in segments of {LONG.config.remat}: {row['peak_bytes'] / 1e9:.2f} GB at "
            f"the peak, {LONG.tokens / row['seconds']:,.0f} tokens/s (CPU {row['cpu']})"
        )
    return row


def scaling(case: Case, turns: int, display: Display) -> list[dict]:
    """Times one and two forced CPU devices on the same batch."""
    rivals = [
        Rival(
            f"{devices} forced CPU device{'s' * (devices > 1)}",
            "rnnx.bench.ours.train",
            case,
            environment={
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
                "JAX_PLATFORMS": "cpu",
                "NPROC": "4",
            },
        )
        for devices in (1, 2)
    ]
    display.start("devices", turns)
    in_turns(rivals, turns, display)
    rows = []
    for rival in rivals:
        rival.close()
        seconds = None if rival.failed else statistics.median(rival.seconds)
        row = {"case": "devices", "label": case.label, "rival": rival.name, "seconds": seconds}
        rows.append(row | {"cpu": processor(), "failed": rival.failed})
        told = rival.failed or f"{seconds * 1e3:,.4g} ms an update (CPU {processor()})"
        display.print(f"{case.label}, {rival.name}: {told}")
    if not any(rival.failed for rival in rivals):
        display.print(f"two devices are {rows[0]['seconds'] / rows[1]['seconds']:.2f}x one")
    return rows


def race(chosen: tuple[Case, ...], turns: int, display: Display) -> list[dict]:
    """All rivals of the cases asked for."""
    rates, rows = Rates(), []
    for case in chosen:
        if not FLAGS.cases or case.name in FLAGS.cases:
            if case.kind == "step":
                rows += latency.compete(case, processor(), turns, display)
            else:
                rows += compete(case, rates, turns, display)
            display.print()
    rates.close()
    if not FLAGS.quick and not FLAGS.cases:
        rows.append(long_window(display))
        small = next(case for case in chosen if case.name == "small")
        rows += scaling(small, turns, display)
    return rows


def define_flags() -> None:
    flags.DEFINE_bool("quick", False, "tiny sizes in under a minute, to check that it works")
    flags.DEFINE_bool("shapes", False, "instead of rivals: time and memory of many shapes")
    flags.DEFINE_list("cases", [], f"only some of {', '.join(case.name for case in CASES)}")
    flags.DEFINE_integer("turns", 9, "of each rival; the table shows medians", lower_bound=1)
    flags.DEFINE_string("out", None, "a JSON file to write")


def main() -> None:
    chosen = QUICK if FLAGS.quick else CASES
    if unknown := set(FLAGS.cases) - {case.name for case in chosen}:
        known = ", ".join(case.name for case in chosen)
        raise UserError(f"unknown case {sorted(unknown)[0]!r}: one of {known}")
    if FLAGS.shapes and (FLAGS.quick or FLAGS.cases):
        raise UserError("--shapes has cases of its own: leave --quick and --cases out")
    if FLAGS.out and not Path(FLAGS.out).parent.is_dir():
        raise UserError(f"--out={FLAGS.out}: the folder {Path(FLAGS.out).parent} is not there")
    # This process computes nothing: the rivals' processes need the accelerator's memory.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    turns, display = (2 if FLAGS.quick else FLAGS.turns), Display()
    about = workdir.machine()
    for rival in ("torch", "onnxruntime"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            about["versions"][rival] = metadata.version(rival)
    display.print(
        f"{about['device']}, CPU family/model {processor()}; "
        f"{', '.join(f'{k} {v}' for k, v in about['versions'].items())}"
    )
    rows = growth.measure(turns, display) if FLAGS.shapes else race(chosen, turns, display)
    if FLAGS.out:
        result = {
            "format": FORMAT,
            "date": datetime.date.today().isoformat(),
            "turns": turns,
            **about,
            "rows": rows,
        }
        Path(FLAGS.out).write_text(json.dumps(result, indent=1) + "\n")
        display.print(f"numbers in {FLAGS.out}")
    if any(row["failed"] for row in rows if row.get("rival", "").startswith("rnnx")):
        raise UserError("rnnx itself failed in a case above")


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
