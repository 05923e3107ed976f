"""Where a reader looks in a passage: what it gives of some questions, and the picture of it."""

import collections
import sys
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rnnx.analysis.canvas import BLUE, GREEN, RED, Picture, canvas
from rnnx.predictions import predictions
from rnnx.trained import Run, load_data

_SHOWN = 6  # questions whose passages are drawn
_ASKED = 500  # questions that words are counted over
_WORDS = 20  # bars
_LEAST = 5  # times that such a word is there
_WIDE = 92  # characters of a line


def of_run(run: Run, split: str, data_dir: str, display: Any) -> dict[str, Any]:
    """What a reader gives of a split, as JSON: some questions with their passages, and the words
    that it looks at most.

    Raises:
      UserError: when the corpus is another than the one trained on.
    """
    config = run.config.copy_and_resolve_references()
    config.data_dir = data_dir or config.data_dir
    dataset = load_data(run.folder, config, lambda line: print(line, file=sys.stderr))
    config.eval_tokens = _ASKED
    batches = run.task.batches(config, dataset, split, "full", slice(None))
    words, answers = run.spec["vocabulary"], run.spec["answers"]
    display.start("reading", len(batches))
    found: dict[int, dict[str, Any]] = {}
    total: collections.Counter[str] = collections.Counter()
    count: collections.Counter[str] = collections.Counter()
    for batch, said in predictions(run, batches, display):
        for row in np.flatnonzero(batch["weight"] > 0):
            length, asked = batch["lengths"][row], batch["question_lengths"][row]
            passage = [words[i] for i in batch["inputs"][row, :length]]
            weights = said["attention"][row, :length]
            p, target = said["probabilities"][row], int(batch["targets"][row])
            found[int(batch["index"][row])] = {
                "passage": passage,
                "weights": weights.tolist(),
                "question": " ".join(words[i] for i in batch["question"][row, :asked]),
                "given": answers[int(p.argmax())],
                "probability": float(p.max()),
                "right": answers[target] if target >= 0 else "an answer that training lacks",
            }
            count.update(passage)
            for word, weight in zip(passage, weights.tolist(), strict=True):
                total[word] += weight
    display.finish()
    means = {word: total[word] / n for word, n in count.items() if n >= _LEAST}
    most = sorted(means, key=lambda word: -means[word])[:_WORDS]
    chosen = np.unique(np.linspace(0, len(found) - 1, _SHOWN).astype(int))
    return {
        "questions": [found[i] for i in chosen],
        "words": [[word, means[word]] for word in most],
        "asked": len(found),
    }


def pictures(numbers: dict[str, Any]) -> list[Picture]:
    """The pictures of `of_run`."""
    return [_passages(numbers["questions"]), _words(numbers["words"], numbers["asked"])]


def _lines(words: list[str]) -> list[list[int]]:
    """Words, by number, in lines of a page's width."""
    lines, used = [[]], 0
    for i, word in enumerate(words):
        if used + len(word) > _WIDE and lines[-1]:
            lines, used = [*lines, []], 0
        lines[-1].append(i)
        used += len(word) + 1
    return lines


def _passages(entries: list[dict[str, Any]]) -> Picture:
    laid = [_lines(entry["passage"]) for entry in entries]
    rows = [len(lines) + 2 for lines in laid]
    figure, axes = canvas(len(entries), 1, height=0.21 * sum(rows) / len(rows), height_ratios=rows)
    for ax, entry, lines in zip(axes.flat, entries, laid, strict=True):
        ax.set(xlim=(0, _WIDE), ylim=(len(lines) + 1.6, -0.4))
        ax.axis("off")
        _passage(ax, entry, lines)
    return Picture(
        "attention",
        "Where the network looks",
        "Passages, each word the bluer the more it counts for the question below it, beside the "
        "word that counts most. Green: answered rightly; red: wrongly, the right answer in "
        "brackets.",
        figure,
    )


def _passage(ax: Axes, entry: dict[str, Any], lines: list[list[int]]) -> None:
    weights = np.asarray(entry["weights"])
    strength = weights / max(weights.max(), 1e-9)
    style = {"family": "monospace", "fontsize": 8.5, "va": "center"}
    for y, line in enumerate(lines):
        x = 0
        for i in line:
            word = entry["passage"][i]
            shade = {"facecolor": BLUE, "alpha": 0.75 * float(strength[i]), "lw": 0, "pad": 1}
            ax.text(x, y, word, bbox=shade, **style)
            x += len(word) + 1
    right = entry["given"] == entry["right"]
    told = f"{entry['question']} ?  {entry['given']} ({entry['probability']:.0%})"
    told += "" if right else f" [{entry['right']}]"
    ax.text(0, len(lines) + 0.3, told, color=GREEN if right else RED, weight="bold", **style)


def _words(words: list[list[Any]], asked: int) -> Picture:
    figure, axes = canvas(height=max(2.4, 0.6 + 0.19 * len(words)))
    ax, y = axes[0, 0], np.arange(len(words))
    ax.barh(y, [mean for _, mean in words], color=BLUE)
    ax.set_yticks(y, [word for word, _ in words], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("mean weight")
    return Picture(
        "attention_words",
        "Which words it looks at",
        f"The words with the highest mean weight over {asked:,} questions, among those that are "
        f"there {_LEAST} times or more.",
        figure,
    )
