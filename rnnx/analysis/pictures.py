"""The pictures of an analysis, drawn from its numbers, with captions that explain them."""

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from rnnx.analysis import pictures_of_mi
from rnnx.analysis.canvas import BLUE, GREEN, GREY, RED, Picture, canvas
from rnnx.analysis.memory import ROUNDING


def of(numbers: dict[str, Any]) -> Iterator[Picture | str]:
    """All pictures of the numbers; a line of text in place of those that do not apply."""
    yield _discs(numbers["discs"])
    if len(numbers["discs"]) > 1:
        yield _discs_over_training(numbers["discs"])
    if "initial_radii" in numbers:
        yield _initial_radii(numbers["initial_radii"])
    if "discs_by_depth" in numbers:
        yield _fresh_networks(numbers["discs_by_depth"], numbers["discs_by_bias"])
    else:
        yield "Discs by transition depth and transform bias: only for RHNs."
    gates = numbers["gates"]
    if gates["places"]:
        yield _gates_over_text(gates)
        yield _gates_of_tokens(gates)
        if gates["memory_lengths"]:
            yield _memory_lengths(gates)
    else:
        yield "Gates: this cell has none."
    yield _lesions(numbers["lesions"])
    yield _gradients(numbers["gradients"])
    yield _activations(numbers["activations"])
    yield _memory(numbers["memory"])
    yield pictures_of_mi.shares(numbers["interaction"])
    if "mi" in numbers:
        yield pictures_of_mi.vectors(numbers["mi"])
    else:
        yield "alpha, beta1, beta2: only general Multiplicative Integration has them."


def _discs(entries: list[dict]) -> Picture:
    drawn = [e for e in entries if "centres" in e]
    layers = max(e["layer"] for e in drawn)
    figure, axes = canvas(layers, len(drawn) // layers, height=3.9)
    # Stage by stage in the file, and a column each here.
    for ax, entry in zip(axes.T.flat, drawn, strict=True):
        centres, radii = np.asarray(entry["centres"]), np.asarray(entry["radii"])
        reach = 1.05 * max(1.1, float(np.max(np.abs(centres) + radii)))
        ax.add_collection(
            EllipseCollection(
                2 * radii, 2 * radii, 0, units="xy", offsets=np.c_[centres, 0 * centres],
                transOffset=ax.transData, facecolors="none", edgecolors=BLUE,
                alpha=max(0.05, min(0.6, 12 / len(centres))), linewidths=0.7,
            )
        )  # fmt: skip
        ax.add_patch(matplotlib.patches.Circle((0, 0), 1, fill=False, color="black", lw=1.2))
        real, imaginary = entry["eigenvalues"]
        ax.plot(real, imaginary, ".", color=RED, markersize=3)
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        ax.set_title((f"layer {entry['layer']}, " if layers > 1 else "") + entry["stage"])
    for ax in axes[-1]:
        ax.set_xlabel("real part")
    for ax in axes[:, 0]:
        ax.set_ylabel("imaginary part")
    return Picture(
        "discs",
        "Gersgorin discs of the transition's Jacobian",
        f"Each blue circle is a disc of a layer's Jacobian at step {drawn[0]['at']} of the text, "
        "and every eigenvalue (red) lies in their union; note the different scales. Eigenvalues "
        "outside the unit circle (black) let gradients grow, those far inside let them vanish, "
        "those near 1 keep them.",
        figure,
    )


def _discs_over_training(entries: list[dict]) -> Picture:
    layers = max(e["layer"] for e in entries)
    figure, axes = canvas(layers, 2, height=3.6 if layers == 1 else 2.8)
    for (left, right), layer in zip(axes, range(1, layers + 1), strict=True):
        stages = [e for e in entries if e["layer"] == layer]
        names, x = [s["stage"] for s in stages], np.arange(len(stages))
        for field, colour, beside in (("centre", BLUE, -0.04), ("radius", RED, 0.04)):
            _errors(left, x + beside, stages, field, colour)
        largest = np.asarray([s["spectral_radius"] for s in stages])
        right.plot(x, largest, ".", color=GREY, ms=4)
        right.plot(x, largest.mean(axis=1), color=GREEN, marker="s", ms=4)
        right.axhline(1, color="black", lw=1, ls=":")
        left.set_ylabel("mean and s.d. over units and steps" if layers == 1 else f"layer {layer}")
        right.set_ylabel("largest |eigenvalue|")
        for ax in (left, right):
            shown = range(0, len(names), max(1, len(names) // 5))
            ax.set_xticks([x[i] for i in shown], [names[i] for i in shown], rotation=30, ha="right")
    axes[0, 0].legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return Picture(
        "discs_training",
        "Discs over training",
        "Left: where the discs' centres lie and how wide the discs are (mean and s.d. over units "
        "and steps); right: the largest modulus of an eigenvalue, a dot for each step of the text "
        "at which it was taken.",
        figure,
    )


def _errors(ax: Axes, x: Any, entries: list[dict], field: str, colour: str) -> None:
    """Mean and standard deviation of centres or radii."""
    mean, spread = np.asarray([e[field] for e in entries]).T
    ax.errorbar(x, mean, spread, color=colour, marker="o", ms=4, capsize=3, label=field)


def _initial_radii(entries: list[dict]) -> Picture:
    figure, axes = canvas()
    ax, x = axes[0, 0], np.arange(len(entries))
    measured = np.asarray([e["measured"] for e in entries]).T
    ax.errorbar(x, *measured, fmt="o", color=BLUE, ms=5, capsize=3, label="measured")
    for name, colour, style in (("uniform", RED, "-"), ("gaussian", GREEN, "--")):
        mean, deviation = entries[0][name]
        label = "expected, U(-s, s)" if name == "uniform" else "expected, Gaussian of its variance"
        ax.axhline(mean, color=colour, ls=style, label=label)
        ax.axhspan(mean - deviation, mean + deviation, color=colour, alpha=0.12, lw=0)
    ax.set_xticks(x, [e["matrix"] for e in entries], rotation=90 if len(x) > 8 else 0)
    ax.set_ylabel("radius, mean and s.d. over rows")
    ax.legend(frameon=False)
    return Picture(
        "initial_radii",
        "Radii of the recurrent matrices at initialisation",
        "The discs' radii of each recurrent matrix of the fresh network beside what n - 1 "
        "independent entries give: (n - 1) s / 2 for U(-s, s), (n - 1) sigma sqrt(2 / pi) for a "
        "Gaussian of the same variance.",
        figure,
    )


def _fresh_networks(by_depth: list[dict], by_bias: list[dict]) -> Picture:
    figure, axes = canvas(1, 2, sharey=True)
    for ax, entries, key in ((axes[0, 0], by_depth, "depth"), (axes[0, 1], by_bias, "bias")):
        x = [e[key] for e in entries]
        for field, colour in (("centre", BLUE), ("radius", RED)):
            _errors(ax, x, entries, field, colour)
        largest = [e["spectral_radius"] for e in entries]
        ax.plot(x, largest, color=GREEN, marker="s", ms=4, label="largest |eigenvalue|")
    axes[0, 0].set_xlabel("transition depth L")
    axes[0, 1].set_xlabel("transform bias")
    axes[0, 0].set_ylabel("mean and s.d. over units")
    axes[0, 1].legend(frameon=False)
    return Picture(
        "discs_fresh",
        "Discs of fresh networks",
        "Centres and radii for untrained networks of this width, with another depth or another "
        "transform bias: a lower bias moves the centres towards 1, which keeps gradients alive.",
        figure,
    )


def _place(entry: dict, layers: int) -> str:
    layer = f"layer {entry['layer']}, " if layers > 1 else ""
    depth = f"l = {entry['depth']}" if entry["gate"] in ("transform gate", "carry gate") else ""
    carry = ", carry" if entry["gate"] == "carry gate" else ""
    return f"{layer}{depth}{carry}" if depth else f"{layer}{entry['gate']}"


def _gates_over_text(gates: dict) -> Picture:
    places, text = gates["places"], gates["text"]
    layers = max(p["layer"] for p in places)
    wide = any(len(word) > 1 for word in text)
    shown = min(len(text), 32 if wide else 64)
    height = 0.9 + 0.24 * len(places) + (0.6 if wide else 0)
    figure, axes = canvas(2, 1, height=height)
    for ax, field, name in ((axes[0, 0], "mean", "mean"), (axes[1, 0], "spread", "s.d.")):
        values = np.asarray([p[field][:shown] for p in places])
        drawn = ax.imshow(values, aspect="auto", cmap="viridis", interpolation="nearest")
        ax.grid(False)
        ax.set_yticks(range(len(places)), [_place(p, layers) for p in places])
        ax.set_xticks(
            range(shown), text[:shown], fontsize=7, family="monospace", rotation=90 if wide else 0
        )
        figure.colorbar(drawn, ax=ax, label=f"{name} over units", pad=0.01)
    axes[1, 0].set_xlabel("text")
    return Picture(
        "gates",
        "Gates over a text",
        "Each column is a token as it is read, each row a gate: how open it is on average over the "
        "units (above), and how much units differ (below).",
        figure,
    )


def _gates_of_tokens(gates: dict) -> Picture:
    places = gates["places"]
    layers = max(p["layer"] for p in places)
    shown = places[:6]
    rows = -(-len(shown) // 2)
    figure, axes = canvas(rows, min(2, len(shown)), height=3.4)
    for ax, place in zip(axes.flat, shown, strict=False):
        values = place["of_tokens"]
        colours = [BLUE if v >= place["overall"] else RED for v in values]
        ax.barh(range(len(values)), values, color=colours)
        ax.axvline(place["overall"], color="black", lw=1, ls=":")
        ax.set_yticks(range(len(values)), place["tokens"], fontsize=6)
        ax.invert_yaxis()
        ax.set_title(_place(place, layers), fontsize=9)
        ax.set_xlabel(f"mean {place['gate']}")
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    more = "" if len(shown) == len(places) else f" (the first {len(shown)} of {len(places)} gates)"
    return Picture(
        "gates_tokens",
        "Which tokens open the gates",
        "The tokens that open each gate most, and least, among those that occur three times or "
        f"more; dotted: the mean over the text{more}.",
        figure,
    )


def _memory_lengths(gates: dict) -> Picture:
    figure, axes = canvas()
    for i, lengths in enumerate(gates["memory_lengths"]):
        style = ("-", "--", ":", "-.")[i % 4]
        x = np.arange(1, len(lengths) + 1)
        axes[0, 0].plot(x, lengths, style, color=BLUE, label=f"layer {i + 1}")
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_xlabel("unit, by memory")
    axes[0, 0].set_ylabel("steps to 1 / e")
    if len(gates["memory_lengths"]) > 1:
        axes[0, 0].legend(frameon=False)
    units = ", ".join(map(str, gates["longest_units"][0][:5]))
    return Picture(
        "units",
        "Which units remember longest",
        "After how many steps 1 / e of a unit's state would be left if only its mean gate acted. "
        f"The units of layer 1 with the longest memory: {units} (counted from 0).",
        figure,
    )


def _lesions(entries: list[dict]) -> Picture:
    figure, axes = canvas(height=max(2.6, 0.8 + 0.2 * len(entries)))
    ax, y = axes[0, 0], np.arange(len(entries))
    colours = [GREY if "units" in e["name"] else BLUE for e in entries]
    widths = [e["half_width"] for e in entries]
    ax.barh(y, [e["rise"] for e in entries], xerr=widths, color=colours, capsize=2)
    ax.set_yticks(y, [e["name"] for e in entries], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("rise of the loss (nats a token)")
    return Picture(
        "lesions",
        "Lesions",
        "The rise of the loss with the transform gate of one depth closed (blue), or with a group "
        "of units silent (grey), with 95 % intervals over segments of the text.",
        figure,
    )


def _gradients(runs: list[dict]) -> Picture:
    layers = len(runs[0]["stages"][0]["mean"])
    figure, axes = canvas(layers, len(runs), height=3.2, sharey=True)
    for column, run in enumerate(runs):
        stages = run["stages"]
        for row in range(layers):
            ax = axes[row, column]
            if row >= len(stages[0]["mean"]):
                ax.set_visible(False)
                continue
            for i, stage in enumerate(stages):
                mean, spread = (np.asarray(stage[f][row]) for f in ("mean", "spread"))
                colour = matplotlib.colormaps["viridis"](0.9 * i / max(len(stages) - 1, 1))
                x = np.arange(len(mean))
                label = stage["stage"] if i in (0, len(stages) // 2, len(stages) - 1) else None
                ax.plot(x, mean, color=colour, label=label, lw=1.4)
                if i == len(stages) - 1:
                    ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.15, lw=0)
            title = run["run"] + (f", layer {row + 1}" if layers > 1 else "")
            ax.set_title(title, fontsize=9)
            ax.set_xlabel("distance from the loss (steps)")
        axes[0, column].legend(frameon=False, fontsize=8)
    for row in range(layers):
        axes[row, 0].set_ylabel("log10 ||dC/dh||")
    return Picture(
        "gradients",
        "Gradients through time",
        "The norm of the gradient of one step's loss C with respect to the state h so many steps "
        "before it: where a line has fallen far, nothing is learned over that distance. Computed "
        "in float64. Band: s.d. over windows, for the last line.",
        figure,
    )


def _activations(runs: list[dict]) -> Picture:
    figure, axes = canvas(1, len(runs), height=3.0, sharey=True)
    for ax, run in zip(axes[0], runs, strict=True):
        edges = np.asarray(run["edges"])
        for i, density in enumerate(run["density"]):
            share = f"{run['saturated'][i]:.0%} saturated"
            label = f"layer {i + 1}: {share}" if len(run["density"]) > 1 else share
            style = ("-", "--", ":", "-.")[i % 4]
            ax.stairs(density, edges, color=BLUE, linestyle=style, label=label)
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_title(run["run"], fontsize=9)
        ax.set_xlabel("tanh activation")
        ax.legend(frameon=False, fontsize=8)
    axes[0, 0].set_ylabel("density")
    return Picture(
        "activations",
        "Activations",
        "How often the candidates take each value. Those beyond 0.9 in modulus are saturated: "
        "there tanh passes hardly any gradient.",
        figure,
    )


def _memory(runs: list[dict]) -> Picture:
    figure, axes = canvas(height=3.2)
    for i, run in enumerate(runs):
        style = {"color": (BLUE, RED)[i % 2], "linestyle": ("-", "--")[i % 2]}
        values = np.asarray(run["kl"])
        values = np.where(values < ROUNDING, np.nan, values)
        axes[0, 0].plot(np.arange(len(values)), values, label=run["run"], **style)
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_xlabel("steps after the changed token")
    axes[0, 0].set_ylabel("KL (nats)")
    axes[0, 0].legend(frameon=False)
    return Picture(
        "memory",
        "Effective memory",
        "One token of the text is exchanged for another: how much that still changes the "
        "prediction so many steps later (mean KL divergence). Computed in float64; a line ends "
        f"where it falls below {ROUNDING:g} nats, as smaller values are rounding.",
        figure,
    )
