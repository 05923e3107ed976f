"""Pictures of how input and state meet, and of Multiplicative Integration."""

import numpy as np
from matplotlib.axes import Axes

from rnnx.analysis.canvas import BLUE, GREY, RED, Picture, canvas


def shares(runs: list[dict]) -> Picture:
    """Parts of the output's variance, a bar for each stage of each run."""
    bars = [(run["run"], stage) for run in runs for stage in run["stages"]]
    figure, axes = canvas(height=max(1.8, 0.9 + 0.28 * len(bars)))
    ax, y = axes[0, 0], np.arange(len(bars))
    left = np.zeros(len(bars))
    parts = (("token", "token alone", BLUE), ("both", "both together", RED),
             ("state", "state alone", GREY))  # fmt: skip
    for name, label, colour in parts:
        values = np.array([stage[name] for _, stage in bars])
        ax.barh(y, values, left=left, color=colour, label=label)
        left += values
    several = len(runs) > 1
    ax.set_yticks(
        y, [f"{run}, {stage['stage']}" if several else stage["stage"] for run, stage in bars],
        fontsize=8,
    )  # fmt: skip
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of the variance of the output after a step")
    ax.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    last = "; ".join(f"{run['run']} {run['stages'][-1]['dependent']:.0%}" for run in runs)
    return Picture(
        "interaction",
        "How input and state meet",
        "The variance of the first layer's output over all pairs of a token and a state of the "
        "text: what the token decides alone, the state alone, and what only both together do. Of "
        f"the token's effect, the share that depends on the state: {last}.",
        figure,
    )


def vectors(entries: list[dict]) -> Picture:
    gates = list(dict.fromkeys((e["layer"], e["gate"]) for e in entries))
    names = ("alpha", "beta1", "beta2")
    figure, axes = canvas(len(gates), 3, height=1.7, sharey="row")
    for row, gate in enumerate(gates):
        for column, name in enumerate(names):
            ax: Axes = axes[row, column]
            (entry,) = (e for e in entries if (e["layer"], e["gate"], e["vector"]) == (*gate, name))
            ax.hist(entry["values"], bins=40, color=BLUE)
            ax.axvline(entry["initial"], color=RED, lw=1.2, ls="--")
            if row == 0:
                ax.set_title(name, fontsize=9)
            if row == len(gates) - 1:
                ax.set_xlabel("value")
        layer = f"layer {gate[0]}, " if max(g[0] for g in gates) > 1 else ""
        axes[row, 0].set_ylabel(f"{layer}{gate[1]}: units", fontsize=8)
    return Picture(
        "mi_vectors",
        "Multiplicative Integration's vectors",
        "Values after training, a row for each gate; dashed: the initial value. alpha weighs the "
        "product W x * U h, beta1 U h and beta2 W x: alpha near 0 would mean that the product is "
        "not used.",
        figure,
    )
