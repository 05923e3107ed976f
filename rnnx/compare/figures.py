"""The figures of a comparison, drawn from its report."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rnnx.analysis.pictures import Picture
from rnnx.compare import words
from rnnx.compare.drawing import (
    GREY,
    INK,
    STYLE,
    curve_of,
    families,
    line_of,
    name_points,
    new_figure,
    panels,
    scale,
    short,
    styles_of,
)


def of(report: dict) -> dict[str, Picture | str]:
    """The figures by name; a line of text in place of one for which nothing was measured."""
    makers = {
        "differences": _differences, "latency": _latency, "training": _training,
        "curves": _curves, "example": _example, "steps": _steps, "tuning": _tuning,
        "fractions": _fractions,
    }  # fmt: skip
    with matplotlib.rc_context(STYLE):
        made = {name: make(report) for name, make in makers.items()}
    return {name: picture for name, picture in made.items() if picture is not None}


def _differences(report: dict) -> Picture | None:
    """Every candidate's difference with its interval."""
    shown = [v for v in report["verdicts"] if v["difference"] is not None and v["interval"]]
    if not shown:
        return None
    styles = styles_of(report)
    control = report["control"] or {}
    one = len({v["against"] for v in shown}) == 1
    rows = [
        (v["model"] if one else f"{v['model']} against {v['against']}", v, v["equal"])
        for v in shown
    ]
    if control.get("difference") is not None and control.get("interval"):
        rows.append(("control: LSTM, other seeds", control, "epochs"))
    names = list(dict.fromkeys(name for name, _, _ in rows))
    figure, axes = new_figure(height=0.9 + 0.27 * len(names))
    ax = axes[0, 0]
    both = len({equal for _, _, equal in rows}) > 1
    for name, entry, equal in rows:
        style = styles.get(entry.get("model"), {"color": GREY, "marker": "o"})
        low, high = (100 * end for end in entry["interval"])
        y = names.index(name) + (0.14 if equal == "seconds" else -0.14) * both
        line = "-" if equal == "epochs" else ":"
        ax.plot([low, high], [y, y], color=style["color"], linestyle=line, linewidth=1.6)
        ax.plot(
            100 * entry["difference"], y, color=style["color"], markersize=5,
            marker=style["marker"], markerfacecolor=style.get("markerfacecolor"),
        )  # fmt: skip
    ax.axvline(0, color=INK, linewidth=0.9)
    reading = "Left of 0 the error is smaller than the reference's. Bars: 95 % intervals."
    if (margin := report["plan"].get("margin")) is not None:
        ax.axvline(-100 * margin, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
        reading += " Dashed: the margin; a gain counts where the whole bar is left of it."
    if both:
        reading += " Solid bars: the same epochs; dotted: the same training time."
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    scale(ax.xaxis, [])
    ax.grid(axis="y", visible=False)
    against = f" from the {shown[0]['against']}" if one else ""
    ax.set_xlabel(f"difference in {report['metric']}{against} (%)")
    return Picture("differences", "The differences", reading, figure)


def _latency(report: dict) -> Picture | str:
    return _against(
        report, "latency", "Error against latency",
        lambda m: (m.get("latency_us") or {}).get("p50"),
        "latency of one step, median (µs)", "Latency was not measured.",
    )  # fmt: skip


def _training(report: dict) -> Picture | str:
    return _against(
        report, "training", "Error against training time", lambda m: m.get("train_seconds"),
        "training time to the best epoch (s)", "Training time was not measured.",
    )  # fmt: skip


def _against(
    report: dict, name: str, title: str, cost: Callable[[dict], Any], label: str, absent: str
) -> Picture | str:
    """Score against a cost, a point a model."""
    shown = [m for m in report["models"] if m["score"] is not None and cost(m) is not None]
    if not shown:
        return absent
    styles = styles_of(report)
    figure, axes = new_figure(height=4.4)
    ax = axes[0, 0]
    ends = []
    grey = words.dominated(report, cost)
    for model in shown:
        style = styles[model["name"]]
        if model["name"] in grey:
            filled = style["markerfacecolor"] != "none"
            style |= {"color": GREY, "markerfacecolor": GREY if filled else "none"}
        low, high = model.get("interval") or (model["score"],) * 2
        ends += [low, high]
        ax.plot([cost(model)] * 2, [low, high], color=style["color"], linewidth=1.1)
        ax.plot(cost(model), model["score"], **style | {"linestyle": "", "markersize": 6})
    scale(ax.xaxis, [cost(m) for m in shown])
    scale(ax.yaxis, ends)
    ax.margins(0.1)
    floor, floor_said = _floor(report, ends)
    if floor is not None:
        ax.axhline(floor["score"], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.set_xlabel(label)
    ax.set_ylabel(words.metric(report))
    name_points(
        ax,
        [
            (
                cost(m), m["score"], m["name"], GREY if m["name"] in grey else INK,
                m.get("interval"),
            )
            for m in shown
        ],
        floor and floor["score"],
    )  # fmt: skip
    reading = "Bars: 95 % intervals. Filled: Multiplicative Integration; hollow: without."
    if grey:
        reading += " Grey: another network has a better score and costs less."
    return Picture(name, title, reading + floor_said, figure)


def _floor(report: dict, scores: Sequence[float]) -> tuple[dict | None, str]:
    """The best floor where it can be drawn beside these scores, and what the caption says."""
    floors = [f for f in report["floors"] if f["score"] is not None]
    if not floors:
        return None, ""
    best = (min if report["lower_is_better"] else max)(floors, key=lambda f: f["score"])
    span = max(scores) - min(scores)
    if min(scores) - span <= best["score"] <= max(scores) + span:
        return best, f" Dashed: the best floor, {best['name']}."
    side = "above" if best["score"] > max(scores) else "below"
    return None, (
        f" The best floor, {best['name']}, is at {words.number(best['score'])}, far {side}."
    )


def _curves(report: dict) -> Picture | str:
    """Validation score by epoch: the median over seeds, and their range."""
    curves = {m["name"]: curve_of(m.get("curves")) for m in report["models"]}
    models = [m for m in report["models"] if curves[m["name"]] is not None]
    if not models:
        return "No learning curves were kept."

    def draw(ax: Axes, model: dict, style: dict) -> None:
        epochs, values = curves[model["name"]]
        every = {"markevery": max(1, len(epochs) // 6), "markersize": 4}
        ax.plot(epochs, np.nanmedian(values, 0), label=model["name"], **style | every)
        low, high = np.nanmin(values, 0), np.nanmax(values, 0)
        ax.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)

    figure, axes = panels(report, models, draw, 2.5)
    shown = [np.nanmedian(curves[m["name"]][1], 0) for m in models]
    later = [median[len(median) // 3 :] for median in shown]  # the first would flatten all else
    lower = report["lower_is_better"]
    low = min(map(np.nanmin, shown if lower else later))
    high = max(map(np.nanmax, later if lower else shown))
    scale(axes[0, 0].yaxis, [low, high])
    room = (high - low) * 0.05 or 1.0
    axes[0, 0].set_ylim(max(low - room, low / 1.1) if low > 0 else low - room, high + room)
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel(f"validation {report.get('valid_metric', report['metric'])}", fontsize=9)
    reading = (
        "Lines: the median over seeds; bands: from the lowest to the highest seed. Scores that "
        "only the first third of the epochs reach are cut off."
    )
    return Picture("curves", "Learning curves", reading, figure)


def _example(report: dict) -> Picture | str | None:
    """What the chosen network does on the test part; samples of text are no figure."""
    examples = report["examples"] or {}
    if examples.get("forecasts"):
        return _forecasts(report, examples["forecasts"])
    if (examples.get("confusion") or {}).get("matrix"):
        return _confusion(**examples["confusion"])
    if (examples.get("scatter") or {}).get("truth"):
        return _scatter(report, **examples["scatter"])
    return None if examples.get("samples") else "No examples were kept."


def _forecasts(report: dict, examples: list[dict]) -> Picture:
    sign = 1 if report["lower_is_better"] else -1
    known = [e for e in examples if e["score"] is not None]
    shown = sorted(known, key=lambda e: -sign * e["score"])[:6] or examples[:6]
    columns = min(2, len(shown))
    figure, axes = new_figure(-(-len(shown) // columns), columns, height=2.2)
    several = len({e["target"] for e in report["examples"]["forecasts"]}) > 1
    for ax, example in zip(axes.flat, shown, strict=False):
        history, truth = (line_of(example[key]) for key in ("history", "truth"))
        ahead = np.arange(1, len(truth) + 1)
        ax.plot(np.arange(1 - len(history), 1), history, color=GREY, linewidth=1)
        joined = np.r_[history[-1:], truth]
        ax.plot(ahead[-1] - np.arange(len(joined))[::-1], joined, color=INK, lw=1.2, label="truth")
        ax.plot(ahead, line_of(example["median"]), color="#0072B2", linewidth=1.4, label="forecast")
        if example.get("low") and example.get("high"):
            low, high = line_of(example["low"]), line_of(example["high"])
            ax.fill_between(ahead, low, high, color="#0072B2", alpha=0.25, linewidth=0)
        ax.axvline(0.5, color=GREY, linewidth=0.7, linestyle=":")
        scale(ax.yaxis, [])
        names = [str(example["series"] or ""), str(example["target"]) if several else ""]
        name = short(", ".join(filter(None, names)))
        score = f"{report['metric']} {words.number(example['score'])}"
        first = f"\nfrom {_first(example)}" if example.get("times") else ""
        ax.set_title((f"{name}: {score}" if name else score) + first)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    axes[0, 0].legend(loc="upper left")
    figure.supxlabel("steps ahead", fontsize=9)
    figure.supylabel(report["unit"] or "value", fontsize=9)
    reading = (
        "The chosen network's forecasts of the test part, the worst first. Grey: what it had seen "
        "last. Band: its interval."
    )
    return Picture("forecasts", "Forecasts over the truth", reading, figure)


def _first(example: dict) -> str:
    """The time of the first step forecast."""
    times = example["times"]
    skipped = len(example["history"]) if len(times) > len(example["truth"]) else 0
    return re.sub(r"( 00:00)?:00$", "", str(times[skipped]).replace("T", " "))


def _confusion(classes: list, matrix: list[list]) -> Picture:
    counts = np.asarray(matrix, float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = len(classes)
    figure, axes = new_figure(height=min(6.5, 2.2 + 0.3 * size))
    ax = axes[0, 0]
    drawn = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    ax.grid(False)
    every = max(1, -(-size // 25))
    ticks = range(0, size, every)
    names = [short(str(classes[i]), 16) for i in ticks]
    wide = max(map(len, names)) > 3 or size > 12
    ax.set_xticks(ticks, names, rotation=45 if wide else 0, ha="right" if wide else "center")
    ax.set_yticks(ticks, names)
    if size <= 15:
        for row, column in np.ndindex(size, size):
            if counts[row, column]:
                ax.text(
                    column, row, f"{counts[row, column]:,.0f}", ha="center", va="center",
                    fontsize=8, color="#FFFFFF" if shares[row, column] > 0.5 else "#222222",
                )  # fmt: skip
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    share = {"format": PercentFormatter(1), "label": "share of the true class"}
    figure.colorbar(drawn, ax=ax, shrink=0.8, **share)
    reading = "The chosen network on the test part: each row is a true class, adding up to 100 %."
    return Picture("confusion", "Confusion matrix", reading, figure)


def _scatter(report: dict, truth: list, predicted: list) -> Picture:
    figure, axes = new_figure(height=4.4)
    ax = axes[0, 0]
    truth, predicted = line_of(truth), line_of(predicted)
    ends = [np.nanmin([truth, predicted]), np.nanmax([truth, predicted])]
    ax.plot(ends, ends, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    many = len(truth) > 1000
    ax.plot(
        truth, predicted, ".", color="#0072B2", alpha=0.35 if many else 0.6, markersize=4,
        markeredgewidth=0, rasterized=many,
    )  # fmt: skip
    scale(ax.xaxis, [])
    scale(ax.yaxis, [])
    unit = f" ({report['unit']})" if report["unit"] else ""
    ax.set_xlabel(f"truth{unit}")
    ax.set_ylabel(f"prediction{unit}")
    reading = "The chosen network on the test part. Dashed: prediction and truth are equal."
    return Picture("scatter", "Predictions against the truth", reading, figure)


def _steps(report: dict) -> Picture | str | None:
    """The error at each step ahead."""
    models = [m for m in report["models"] if len(m.get("by_step") or []) > 1]
    if not models:
        return None
    floors = [f for f in report["floors"] if len(f.get("by_step") or []) > 1]

    def draw(ax: Axes, model: dict, style: dict) -> None:
        values = line_of(model["by_step"])
        every = {"markevery": max(1, len(values) // 6), "markersize": 4}
        ax.plot(np.arange(1, len(values) + 1), values, label=model["name"], **style | every)

    figure, axes = panels(report, models, draw, 2.5)
    shown = [v for m in models for v in m["by_step"] if v is not None]
    for floor in floors:
        values = line_of(floor["by_step"])
        if np.nanmin(values) > 2 * max(shown):
            continue
        for ax in axes.flat:
            ax.plot(
                np.arange(1, len(values) + 1), values, color=INK, linewidth=0.9,
                linestyle=(0, (1, 1.5)), label=floor["name"],
            )  # fmt: skip
            ax.legend(loc="best")
    scale(axes[0, 0].yaxis, shown)
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.supxlabel("steps ahead", fontsize=9)
    figure.supylabel(words.metric(report), fontsize=9)
    reading = "Mean over seeds, of every step on its own." + " Dotted: floors." * bool(floors)
    return Picture("steps", "Error by step ahead", reading, figure)


def _tuning(report: dict) -> Picture | str:
    """Score against learning rate, and against the initial range, of the tuning trials."""
    models = [m for m in report["models"] if m.get("tuning")]
    scores = [t["score"] for m in models for t in m["tuning"] if t["score"] is not None]
    if not scores:
        return "No tuning trial ended with a score."
    styles = styles_of(report)
    panels = families(models)
    figure, axes = new_figure(len(panels), 2, height=1.75, sharex="col", sharey=True)
    lower = report["lower_is_better"]
    top = min(max(scores), 5 * np.median(scores)) if lower and min(scores) > 0 else max(scores)
    for row, (_, members) in zip(axes, panels, strict=True):
        for ax, field in zip(row, ("learning_rate", "init_scale"), strict=True):
            for model in members:
                style = styles[model["name"]] | {"linestyle": "", "markersize": 5}
                for trial in model["tuning"]:
                    if trial["score"] is None or trial["score"] > top:
                        ax.plot(
                            trial[field], float(lower), "x", color=style["color"], markersize=5,
                            transform=ax.get_xaxis_transform(), clip_on=False,
                        )  # fmt: skip
                tried = [t for t in model["tuning"] if t["score"] is not None and t["score"] <= top]
                tried = sorted(tried, key=lambda t: t[field])
                ax.plot(
                    [t[field] for t in tried], [t["score"] for t in tried], label=model["name"],
                    **style,
                )  # fmt: skip
        row[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    for ax, field in zip(axes[-1], ("learning_rate", "init_scale"), strict=True):
        scale(ax.xaxis, [t[field] for m in models for t in m["tuning"]])
        ax.set_xlabel(field.replace("_", " ").replace("init scale", "range of initial weights"))
    scale(axes[0, 0].yaxis, [s for s in scores if s <= top])
    figure.supylabel(f"validation {report.get('valid_metric', report['metric'])}", fontsize=9)
    reading = (
        "A point is a tuning trial; both settings vary from trial to trial. Crosses at the "
        "edge: trials that diverged or scored far worse. A cell whose points lie level is robust."
    )
    return Picture("tuning", "Robustness to learning rate and initial range", reading, figure)


def _fractions(report: dict) -> Picture | str:
    """Score by the share of the training data."""
    found = [f for f in report["fractions"] or [] if f["score"] is not None]
    if not found:
        return "Smaller parts of the training data were not tried."
    styles = styles_of(report)
    figure, axes = new_figure(height=3.6)
    ax = axes[0, 0]
    names = list(dict.fromkeys(f["model"] for f in found))
    ends = []
    for i, name in enumerate(names):
        own = sorted((f for f in found if f["model"] == name), key=lambda f: f["fraction"])
        # Side by side, so that the bars can be told apart.
        x = [100 * f["fraction"] * 1.03 ** (i - (len(names) - 1) / 2) for f in own]
        style = styles.get(name, {"color": GREY})
        ax.plot(x, [f["score"] for f in own], label=name, **style)
        for at, entry in zip(x, own, strict=True):
            low, high = entry.get("interval") or (entry["score"],) * 2
            ends += [low, high]
            ax.plot([at, at], [low, high], color=style["color"], linewidth=1.1)
    ax.set_xscale("log")
    shares = sorted({100 * f["fraction"] for f in found})
    ax.set_xticks(shares, [f"{share:g} %" for share in shares])
    ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    scale(ax.yaxis, ends)
    ax.set_xlabel("share of the training data")
    ax.set_ylabel(words.metric(report))
    ax.legend(loc="best")
    reading = "Bars: 95 % intervals."
    return Picture("fractions", "With less training data", reading, figure)
