"""How time and memory of an update grow with batch, window, width and depth."""

from rich.table import Table

from rnnx.bench.cases import Case
from rnnx.bench.machine import Rates, row_of
from rnnx.bench.rivals import Rival
from rnnx.display import Display


def shapes() -> tuple[Case, ...]:
    """RHNs of V = 50: one size varied from B = 80, T = 35, n = 256, L = 3; and, of depth 1, all
    combinations of two values each of B, T and n."""

    def shape(**sizes: int) -> Case:
        rows, steps, n, depth = (sizes[name] for name in ("B", "T", "n", "L"))
        label = " ".join(f"{name}={size:,}" for name, size in sizes.items())
        fields = dict(
            cell="rhn", one_hot=True, batch_size=rows, num_steps=steps, hidden_size=n, depth=depth
        )  # fmt: skip
        return Case("shape", f"RHN {label}", 50, tuple(fields.items()))

    base = dict(B=80, T=35, n=256, L=3)
    grown = dict(
        B=(20, 80, 320), T=(35, 100, 200, 400), n=(128, 256, 512, 1024, 1650), L=(1, 2, 3, 5, 10)
    )
    lines = [base | {name: size} for name, sizes in grown.items() for size in sizes]
    corners = [
        dict(B=rows, T=steps, n=n, L=1)
        for n in (256, 1650) for rows in (80, 320) for steps in (35, 400)
    ]  # fmt: skip
    return tuple({case.label: case for case in (shape(**s) for s in lines + corners)}.values())


def measure(turns: int, display: Display) -> list[dict]:
    """Times and weighs an update of each shape, one after the other."""
    rates, rows = Rates(), []
    table = Table(title="shapes, an update each", title_justify="left", box=None)
    for heading in ("", "ms", "us a token", "GFLOP/s", "GB"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    chosen = shapes()
    for number, case in enumerate(chosen, 1):
        display.start(f"{case.label}, {number} of {len(chosen)}", turns)
        rival = Rival("rnnx", "rnnx.bench.ours.train", case)
        rival.await_ready()
        rates.begin()
        for turn in range(turns):
            rates.turn()
            rival.turn()
            display.update(turn + 1)
        display.finish()
        rival.close()
        rows.append(row := row_of(rival, case, rates) | {"fields": dict(case.fields)})
        if row["failed"]:
            display.print(f"{case.label}: {row['failed']}")
            continue
        table.add_row(
            case.label,
            f"{row['seconds'] * 1e3:,.4g}",
            f"{1e6 / row['tokens_per_second']:,.4g}",
            f"{row['gflops']:,.0f}",
            f"{row['peak_bytes'] / 1e9:.2f}",
        )
    rates.close()
    display.print(table)
    if products := [row["machine_flops"] / 1e9 for row in rows if not row["failed"]]:
        low, high = min(products), max(products)
        display.print(f"machine: product {low:,.0f} to {high:,.0f} GFLOP/s")
    return rows
