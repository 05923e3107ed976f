"""The time of a single step at batch 1, the state carried: every call by itself.

A mean hides what a service feels: rows give the median and the 99th percentile, with one thread
and with two.
"""

from collections.abc import Iterator

import numpy as np
from rich.table import Table

from rnnx.bench.cases import Case
from rnnx.bench.rivals import Rival, in_turns
from rnnx.display import Display

THREADS = (1, 2)


def rivals_of(case: Case, threads: int) -> Iterator[Rival]:
    """All implementations of a step, the exported one first."""
    environment = {"OMP_NUM_THREADS": str(threads)}
    if threads == 1:
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    options = {"environment": environment, "each": True}
    ours, theirs = "rnnx.bench.in_onnx.token", "rnnx.bench.in_torch.token"
    yield Rival("rnnx.runtime", ours, case, threads, **options)
    yield Rival("rnnx.runtime, int8", ours, case, threads, int8=True, **options)
    yield Rival("rnnx, jitted", "rnnx.bench.ours.token", case, **options)
    if case.config.cell == "lstm":
        yield Rival("torch nn.LSTM", theirs, case, form="layer", **options)
    yield Rival("torch, addmm", theirs, case, form="addmm", **options)
    yield Rival("torch, linear", theirs, case, form="linear", **options)


def compete(case: Case, cpu: str, turns: int, display: Display) -> list[dict]:
    """Measures all rivals of a case, turn by turn, and prints their table."""
    rows = []
    for threads in THREADS:
        display.start(f"{case.label}, threads: {threads}", turns)
        rivals = list(rivals_of(case, threads))
        in_turns(rivals, turns, display)
        for rival in rivals:
            rival.close()
        rows += [row_of(rival, case, threads, cpu, rivals[0]) for rival in rivals]
    display.print(table_of(case, rows))
    for reason in dict.fromkeys(row["failed"] for row in rows if row["failed"]):
        names = {row["rival"]: None for row in rows if row["failed"] == reason}
        display.print(f"without {', '.join(names)}: {reason}")
    return rows


def row_of(rival: Rival, case: Case, threads: int, cpu: str, first: Rival) -> dict:
    """A rival's row in the JSON. It fails if its logits are not those of the first."""
    row = {"case": case.name, "label": case.label, "rival": rival.name, "cpu": cpu}
    row |= {"threads": threads, "failed": rival.failed}
    if rival.failed or first.failed:
        return row
    close = 0.1 if "int8" in rival.name else 1e-3
    if not np.allclose(rival.told, first.told, rtol=close, atol=close * 1e-2):
        return row | {"failed": f"other results: {rival.told}, the first has {first.told}"}
    return row | {
        "seconds": float(np.median(rival.seconds)),
        "seconds_99": float(np.percentile(rival.seconds, 99)),
        "calls": len(rival.seconds),
        "told": rival.told,
    }


def table_of(case: Case, rows: list[dict]) -> Table:
    """Medians and 99th percentiles, and how many times the first row's they are."""
    table = Table(title=case.label, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("microseconds a step")
    for heading in ("threads", "median", "99th percentile", "ours is", "99th"):
        table.add_column(heading, justify="right")
    first = {row["threads"]: row for row in reversed(rows) if row["rival"] == rows[0]["rival"]}
    for row in rows:
        if not row["failed"]:
            ours = first[row["threads"]]
            table.add_row(
                row["rival"],
                str(row["threads"]),
                *(f"{row[name] * 1e6:,.0f}" for name in ("seconds", "seconds_99")),
                *(
                    "" if row is ours else f"{row[name] / ours[name]:.1f}x"
                    for name in ("seconds", "seconds_99")
                ),
            )
    return table
