"""Plots of runs: legible at page width, in colours safe for colour-blind readers."""

import math
import statistics
import textwrap
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from rnnx import config as configs
from rnnx.cells import CELLS
from rnnx.config import show
from rnnx.report.runs import (
    Group,
    Run,
    differing,
    grouped,
    labels,
    named,
)

# The colours of Okabe and Ito, without yellow.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = "osD^vPX"
_LINES = ("-", "--", ":", "-.")
_MOST = 14  # curves in one plot
_WIDEST = 36  # characters of a line in a legend


def learning_curves(runs: Sequence[Run]) -> Figure:
    """Valid score by epoch: the mean over seeds, and their range as a band."""
    figure, axes = blank()
    groups = _best(_begun(runs))
    for group, label, style in _styled(groups):
        epochs = min(len(run.valid) for run in group.runs)
        x = group.runs[0].epoch[:epochs]
        curves = [run.shown(run.valid[:epochs]) for run in group.runs]
        axes.plot(x, list(map(statistics.fmean, zip(*curves, strict=True))), label=label, **style)
        if len(curves) > 1:
            low, high = (list(map(f, zip(*curves, strict=True))) for f in (min, max))
            axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _finish(figure, axes, groups, "valid")


def against_seconds(runs: Sequence[Run]) -> Figure:
    """The best valid score so far by training time, of each group's first run."""
    figure, axes = blank()
    groups = _best(_begun(runs))
    for group, label, style in _styled(groups):
        run = group.runs[0]
        best = [run.task.best(run.valid[: i + 1]) for i in range(len(run.valid))]
        axes.plot([s / 60 for s in run.seconds], run.shown(best), label=label, **style)
    axes.set_xlabel("training time (minutes)")
    return _finish(figure, axes, groups, "best valid")


def against_parameters(runs: Sequence[Run]) -> Figure | None:
    """Test score of complete runs by number of parameters; None if all have the same number."""
    groups = _best([g for g in grouped(runs) if g.values("test")])
    sizes = [group.runs[0].params for group in groups]
    if not sizes or max(sizes) < 1.1 * min(sizes):
        return None
    figure, axes = blank()
    for group, label, style in _styled(groups):
        values = group.values("test")
        x = [group.runs[0].params / 1e6] * len(values)
        axes.plot(x, values, label=label, **style | {"linestyle": ""})
    axes.set_xlabel("parameters (millions)")
    return _finish(figure, axes, groups, "test")


def against_field(runs: Sequence[Run]) -> Figure | None:
    """Score by the one number that was swept, a line for each other choice.

    Points are runs, the line joins their means. None when no number, or more than one, was
    swept.
    """
    groups = [g for g in grouped(runs) if g.values("valid")]
    names = differing(groups)
    numbers = [n for n in names if type(configs.FIELDS[n].default) in (int, float)]
    if len(numbers) != 1 or len({g.config[numbers[0]] for g in groups}) < 3:
        return None
    name = numbers[0]
    others = [n for n in names if n != name]
    figure, axes = blank()
    lines: dict[str, list[Group]] = {}
    for group in groups:
        lines.setdefault(" ".join(named(group.config, n) for n in others), []).append(group)
    for i, (label, members) in enumerate(lines.items()):
        members.sort(key=lambda g: g.config[name])
        style = style_of(i)
        for split, kind in (("valid", "--"), ("test", "-")):
            x = [g.config[name] for g in members]
            y = [g.mean(split) for g in members]
            text = f"{label} {split}".strip()
            axes.plot(x, y, label=text, **style | {"linestyle": kind})
            for g in members:
                values = g.values(split)
                axes.plot([g.config[name]] * len(values), values, ".", color=style["color"], ms=3)
    axes.set_xlabel("transition depth L" if name == "depth" else name)
    values = sorted({g.config[name] for g in groups})
    if name != "depth" and values[0] > 0:  # without dropout is a point too
        axes.set_xscale("log")
    if len(values) <= 10:
        axes.set_xticks(values, list(map(show, values)))
        axes.xaxis.set_minor_locator(NullLocator())
    return _finish(figure, axes, groups, "score")


def searches(runs: Sequence[Run]) -> Figure | None:
    """Every complete run of a search as a point, by cell and transition depth; bars are medians.

    A run's value is the best training score of its epochs. Runs that learned next to nothing would
    squeeze the others together: above 1.8 times the best they are drawn hollow, at the upper edge.
    None where no run has a whole epoch, or where a higher score is better.
    """
    complete = [run for run in runs if run.complete and run.best_train is not None]
    if not complete or not complete[0].task.lower_is_better:
        return None
    figure, axes = blank()
    depths = sorted({run.config["depth"] for run in complete})
    cells = list(dict.fromkeys(run.config["cell"] for run in complete))
    width, told = 0.8 / len(cells), set()
    edge = 1.8 * min(run.best_train for run in complete)
    for i, cell in enumerate(cells):
        style = style_of(i)
        for j, depth in enumerate(depths):
            values = sorted(
                run.best_train
                for run in complete
                if (run.config["cell"], run.config["depth"]) == (cell, depth)
            )
            if not values:
                continue
            centre = j + (i - (len(cells) - 1) / 2) * width
            x = [centre + (k % 3 - 1) * width / 6 for k in range(len(values))]
            low = [(at, v) for at, v in zip(x, values, strict=True) if v <= edge]
            high = [at for at, v in zip(x, values, strict=True) if v > edge]
            points = {"color": style["color"], "markersize": 5, "linestyle": ""}
            name = None if cell in told else CELLS[cell].name  # once in the legend
            told.add(cell)
            filled = points | {"marker": style["marker"], "markeredgewidth": 0, "alpha": 0.6}
            axes.plot([at for at, _ in low], [v for _, v in low], label=name, **filled)
            hollow = points | {"marker": style["marker"], "markerfacecolor": "none"}
            axes.plot(high, [edge] * len(high), clip_on=False, **hollow)
            ends = [centre - width / 3, centre + width / 3]
            median = min(statistics.median(values), edge)
            axes.plot(ends, [median] * 2, color=style["color"], linewidth=2)
    axes.set_ylim(top=edge)
    axes.set_xticks(range(len(depths)), [str(depth) for depth in depths])
    axes.set_xlabel("transition depth L")
    axes.set_ylabel(f"lowest training score, {complete[0].unit.name}")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def blank() -> tuple[Figure, Axes]:
    """An empty plot in the style of all."""
    figure = Figure(figsize=(6.5, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3, linewidth=0.6)
    return figure, axes


def style_of(i: int) -> dict:
    """Colour and marker of the i-th line."""
    return {
        "color": _COLOURS[i % len(_COLOURS)],
        "marker": _MARKERS[i % len(_MARKERS)],
        "linestyle": "-" if i < len(_COLOURS) else "--",
        "markersize": 4,
        "linewidth": 1.4,
    }


def _begun(runs: Sequence[Run]) -> list[Group]:
    """The groups of the runs that have a whole epoch behind them; a seed that has only just begun
    takes nothing from the others."""
    return grouped(run for run in runs if run.valid)


def _best(groups: list[Group]) -> list[Group]:
    """The groups to draw: all, or the best by valid score where there are too many lines."""
    if len(groups) <= _MOST:
        return groups
    sign = 1 if groups[0].task.lower_is_better else -1

    def lowest(group: Group) -> float:
        return min((sign * v for run in group.runs for v in run.valid), default=math.inf)

    best = sorted(groups, key=lowest)[:_MOST]
    return [g for g in groups if g in best]


def _styled(groups: Sequence[Group]) -> list[tuple[Group, str, dict]]:
    """Each group with its label and style.

    If a single number was swept, colours follow a colour map. If several fields were, the first
    decides colour and marker and the second the line style, if that distinguishes all groups.
    """
    names = differing(groups)
    styles = [style_of(i) for i in range(len(groups))]
    if len(names) > 1:
        first, second = (
            list(dict.fromkeys(str(group.config[name]) for group in groups)) for name in names[:2]
        )
        places = [
            (first.index(str(group.config[names[0]])), second.index(str(group.config[names[1]])))
            for group in groups
        ]
        told_apart = len(set(places)) == len(groups)
        if told_apart and len(first) <= len(_COLOURS) and len(second) <= len(_LINES):
            styles = [style_of(i) | {"linestyle": _LINES[j]} for i, j in places]
    elif names and type(configs.FIELDS[names[0]].default) in (int, float) and len(groups) > 2:
        values = sorted({group.config[names[0]] for group in groups})
        for group, style in zip(groups, styles, strict=True):
            place = values.index(group.config[names[0]]) / (len(values) - 1)
            style |= {"color": matplotlib.colormaps["viridis"](0.9 * place), "linestyle": "-"}
    texts = [textwrap.fill(label, _WIDEST, break_on_hyphens=False) for label in labels(groups)]
    return list(zip(groups, texts, styles, strict=True))


def _finish(figure: Figure, axes: Axes, groups: Sequence[Group], what: str) -> Figure:
    unit = groups[0].unit
    axes.set_ylabel(f"{what}, {unit.name}")
    low, high = axes.get_ylim()
    if unit.logarithmic and high > 4 * max(low, 1.0):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:,.0f}"))
    handles, texts = axes.get_legend_handles_labels()
    if len(handles) > 6:
        lines = sum(text.count("\n") + 1 for text in texts)
        figure.set_figheight(max(4.0, 0.5 + 0.16 * lines))  # inches; the legend is 8 points
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    elif len(handles) > 1:
        axes.legend(frameon=False)
    return figure
