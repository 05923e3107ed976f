"""When each letter is said: a table and a picture of one transcription."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rnnx.tasks import beam
from rnnx.tasks.transcripts import spelled

_SHOWN = 12  # symbols whose posteriors are drawn


def write(
    place: Path, frames: np.ndarray, log_p: np.ndarray, symbols: list[int], names: list[str],
    seconds: float,
) -> None:  # fmt: skip
    """Writes place.tsv, start and end of each symbol in seconds, and place.png.

    Args:
      frames: (T', F) features, drawn as they are.
      log_p: (T, V) log posteriors.
      symbols: what was decoded from them.
      names: of the symbols, without the blank.
      seconds: that one step of log_p lasts.
    """
    steps = beam.aligned(log_p, tuple(symbols)) if symbols else []
    said = [spelled([symbol], names, "char") for symbol in symbols]
    lines = [
        f"{seconds * first:.2f}\t{seconds * (last + 1):.2f}\t{name}"
        for (first, last), name in zip(steps, said, strict=True)
    ]
    # Not with_suffix, which would take "talk.1" for "talk".
    place.with_name(f"{place.name}.tsv").write_text(
        "\n".join(["start\tend\tsymbol", *lines]) + "\n"
    )
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    length = seconds * len(log_p)
    top.imshow(frames.T, aspect="auto", origin="lower", extent=(0, length, 0, frames.shape[1]))
    top.set_ylabel("band")
    drawn = list(dict.fromkeys(symbols))[:_SHOWN]
    time = seconds * (np.arange(len(log_p)) + 0.5)
    bottom.plot(time, np.exp(log_p[:, beam.BLANK]), color="0.75", linewidth=1, label="blank")
    for i, symbol in enumerate(drawn):
        bottom.plot(time, np.exp(log_p[:, symbol]), color=f"C{i % 10}", linewidth=1.2)
    for (first, last), name in zip(steps, said, strict=True):
        middle = seconds * (first + last + 1) / 2
        bottom.text(middle, 1.04, name.replace(" ", "\u2423"), ha="center", va="bottom", fontsize=9)
    bottom.set_ylim(0, 1.18)
    bottom.set_xlabel("seconds")
    bottom.set_ylabel("probability")
    bottom.spines[["top", "right"]].set_visible(False)
    bottom.legend(frameon=False, fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.95))
    figure.savefig(place.with_name(f"{place.name}.png"), dpi=130)
