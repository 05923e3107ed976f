"""How the figures of a comparison are drawn: colours, scales, names beside points, SVG.

A colour stands for a cell, in every figure. Multiplicative Integration is solid or filled, its
additive partner dashed or hollow. Text and axes have one colour of their own (`INK`), which `svg`
replaces by that of the text around the figure, light or dark.
"""

import io
import math
import re
from collections.abc import Callable, Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from rnnx.analysis.pictures import Picture

INK, GREY = "#010203", "#8C8C8C"
# Of Okabe and Ito, and one of Tol's for cells to come.
_COLOURS = {
    "lstm": "#0072B2", "gru": "#D55E00", "rhn": "#009E73", "mingru": "#CC79A7",
    "slstm": "#E69F00", "rnn": "#56B4E9",
}  # fmt: skip
_OTHER = "#999933"
_MARKERS = "os^vDPXp<>"
STYLE = {
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8,
    "legend.frameon": False, "svg.fonttype": "path", "figure.facecolor": "none",
    "axes.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": GREY, "grid.alpha": 0.25,
    "grid.linewidth": 0.6, "text.parse_math": False,  # a `$` in data is no formula
} | dict.fromkeys(
    ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
)  # fmt: skip


def styles_of(report: dict) -> dict[str, dict]:
    """Of each model by name: colour, marker, whether filled, line."""
    found: dict[str, dict] = {}
    kinds: list[tuple] = []
    for model in report["models"]:
        kind = (model["cell"], model["depth"])
        kinds += [kind] * (kind not in kinds)
        colour = _COLOURS.get(model["cell"], _OTHER)
        mi = model["integration"] != "additive"
        found[model["name"]] = {
            "color": colour,
            "marker": _MARKERS[kinds.index(kind) % len(_MARKERS)],
            "markerfacecolor": colour if mi else "none",
            "linestyle": "-" if mi else "--",
            "linewidth": 1.5,
            "markersize": 5,
        }
    return found


def new_figure(rows: int = 1, columns: int = 1, height: float = 3.8, **options) -> tuple:
    figure = Figure(figsize=(6.8, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def scale(axis: Axis, values: Iterable[float]) -> None:
    """Logarithmic where the values range over more than a decade; plain numbers at the ticks."""
    values = [v for v in values if v is not None]
    axis.set_major_formatter(FuncFormatter(lambda x, _: _tick(x, axis.get_majorticklocs())))
    if not values or min(values) <= 0 or max(values) <= 10 * min(values):
        axis.set_major_locator(MaxNLocator(5))
        return
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    decades = math.log10(max(values) / min(values))
    between = (1, 2, 5) if decades < 1.5 else (1, 3) if decades < 2 else (1,)
    axis.set_major_locator(LogLocator(subs=between))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda x, _: _tick(x, [])))


def _tick(value: float, ticks: Sequence[float]) -> str:
    """The number with as many decimals as tell evenly spaced ticks apart; no more than needed."""
    if len(ticks) < 2:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    step = ticks[1] - ticks[0]
    decimals = next((d for d in range(9) if abs(round(step, d) - step) < 1e-6 * step), 9)
    return f"{value + 0.0:,.{decimals}f}"


def families(models: Sequence[dict]) -> list[tuple[str, list[dict]]]:
    """Panels of at most one cell; cells with a single model share one."""
    cells = list(dict.fromkeys(m["cell"] for m in models))
    panels = [(cell, [m for m in models if m["cell"] == cell]) for cell in cells]
    single = [m for _, those in panels if len(those) == 1 for m in those]
    if len(single) < 2:
        return panels
    return [p for p in panels if len(p[1]) > 1] + [("others", single)]


def panels(
    report: dict, models: Sequence[dict], draw: Callable[[Axes, dict, dict], None], height: float
) -> tuple[Figure, np.ndarray]:
    """A panel for each family, with the LSTM in grey in those of the others."""
    styles = styles_of(report)
    shown = families(models)
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = new_figure(rows, columns, height=height, sharex=True, sharey=True)
    lstm = next((m for m in models if m["name"] == "LSTM"), None)
    for ax, (_, members) in zip(axes.flat, shown, strict=False):
        if lstm and lstm not in members:
            draw(ax, lstm, styles["LSTM"] | {"color": GREY, "markerfacecolor": "none"})
        for model in members:
            draw(ax, model, styles[model["name"]])
        ax.legend(loc="best")
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
        axes[-2, 1].xaxis.set_tick_params(labelbottom=True)
    return figure, axes


def name_points(ax: Axes, points: Sequence[tuple], line: float | None = None) -> None:
    """Writes the names beside the points where they cover neither each other nor a bar.

    Args:
      points: x, y, name, colour, interval or None.
      line: the height of a line across, which they don't cover either.
    """
    figure = ax.figure
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    renderer = figure.canvas.get_renderer()
    pixels = figure.dpi / 72
    taken, markers = [], {}
    for x, y, _, _, interval in points:
        at = ax.transData.transform([(x, v) for v in (y, *(interval or ()))])
        taken.append(Bbox.from_extents(*(at.min(0) - 2 * pixels), *(at.max(0) + 2 * pixels)))
        taken.append(Bbox.from_bounds(*(at[0] - 4 * pixels), 8 * pixels, 8 * pixels))
        markers[x, y] = taken[-1]
    frame = ax.get_window_extent(renderer)
    if line is not None:
        height = ax.transData.transform((1, line))[1]
        taken.append(Bbox.from_extents(frame.x0, height - pixels, frame.x1, height + pixels))
    directions = [(1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)]
    for x, y, name, colour, _ in sorted(points, key=lambda p: p[0]):
        text = ax.text(0, 0, name, fontsize=8)
        size = text.get_window_extent(renderer)
        text.remove()
        at = ax.transData.transform((x, y))
        best, least = None, math.inf
        for reach in (7, 12, 18, 26, 36, 48, 62):
            for right, up in directions:
                centre = at + np.array((
                    right * (reach * pixels + size.width / 2),
                    up * (reach * pixels + size.height / 2),
                ))  # fmt: skip
                corner = centre - (size.width / 2, size.height / 2)
                box = Bbox.from_bounds(*corner, size.width, size.height).padded(pixels)
                outside = not (frame.x0 <= box.x0 and box.x1 <= frame.x1)
                outside |= not (frame.y0 <= box.y0 and box.y1 <= frame.y1)
                covered = sum(_shared(box, other) for other in taken) + 1e6 * outside
                # Nor may a marker come between a point and its name.
                way = at + np.linspace(0.1, 1, 12)[:, None] * (centre - at)
                covered += sum(
                    1e3 * any(marker.contains(*step) for step in way)
                    for point, marker in markers.items()
                    if point != (x, y)
                )
                if covered < least:
                    best, least = (box, (centre - at) / pixels, reach), covered
            if least == 0:
                break
        box, offset, reach = best
        taken.append(box)
        leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        ax.annotate(
            name, (x, y), xytext=offset, textcoords="offset points", fontsize=8, color=colour,
            ha="center", va="center", arrowprops=leader if reach > 12 else None,
        )  # fmt: skip


def _shared(one: Bbox, other: Bbox) -> float:
    """The area that two boxes have in common."""
    common = Bbox.intersection(one, other)
    return common.width * common.height if common else 0.0


def line_of(values: list | None) -> np.ndarray:
    """An array, NaN where a value is missing."""
    return np.asarray([np.nan if v is None else v for v in values or []], float)


def short(text: str, most: int = 32) -> str:
    """The beginning of a name that is too long for a figure."""
    return text if len(text) <= most else text[: most - 3] + "..."


def curve_of(seeds: list | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Epochs (E,) and validation scores (seeds, E), NaN where a seed has none."""
    seeds = [s for s in seeds or [] if any(point["valid"] is not None for point in s)]
    if not seeds:
        return None
    epochs = sorted({
        point["epoch"] for seed in seeds for point in seed if point["valid"] is not None
    })  # fmt: skip
    values = np.full((len(seeds), len(epochs)), np.nan)
    for row, seed in zip(values, seeds, strict=True):
        for point in seed:
            if point["valid"] is not None:
                row[epochs.index(point["epoch"])] = point["valid"]
    return np.asarray(epochs), values


def svg(picture: Picture) -> str:
    """The figure as an SVG element, its ids distinct from those of other figures."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": picture.name}):
        picture.figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{picture.name}-", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" ?', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*" ?', r"<svg \1", text, count=1)
    return text.replace(INK, "currentColor")
