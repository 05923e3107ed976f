"""What all pictures of an analysis have in common."""

from typing import NamedTuple

from matplotlib.figure import Figure

BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"


class Picture(NamedTuple):
    """A figure, the name of its file, its title, and a sentence on how to read it."""

    name: str
    title: str
    reading: str
    figure: Figure


def canvas(rows: int = 1, columns: int = 1, height: float = 3.6, **options) -> tuple:
    """A figure of page width, and its axes (rows, columns)."""
    figure = Figure(figsize=(7.0, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    return figure, axes
