"""The report of a comparison: report.json, runs.csv, report.md and report.html.

The report is one dict:

    format, task, metric, unit, lower_is_better
    data       name, file, sha256, rows of train / valid / test, about, notes, warnings
    plan       minutes, param_budget, trials, seeds, epochs, left_out, seconds
    floors     name, score, metrics
    models     what each network is, scored and costs; its tuning trials and learning curves
    verdicts   question, model, against, difference, interval, p, answer, sentence, equal
    control    likewise, of the LSTM against itself
    fractions  model, fraction, score, interval
    chosen     model, workdir, why, command
    examples   forecasts, confusion, scatter or samples
    machine    device, threads, versions, git
    commands   lines

Numbers are in the data's own units. What was not measured is None, in the file null.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table as RichTable

from rnnx.compare import words
from rnnx.compare.page import page
from rnnx.errors import writing
from rnnx.workdir import write_json

TASKS = ("forecast", "classify", "regress", "text")
_KEYS = {
    "": (
        "format", "task", "metric", "unit", "lower_is_better", "data", "plan", "floors", "models",
        "verdicts", "control", "fractions", "chosen", "examples", "machine", "commands",
    ),
    "floors": ("name", "score"),
    "models": ("name", "cell", "integration", "depth", "params", "score", "interval",
               "scores_by_seed"),
    "verdicts": ("question", "model", "against", "difference", "interval", "answer", "sentence",
                 "equal"),
}  # fmt: skip
_COLUMNS = (
    "model", "stage", "seed", "learning_rate", "init_scale", "fraction", "epochs", "seconds",
    "valid", "test",
)  # fmt: skip


def write(folder: Path, report: dict, runs: list[dict]) -> None:
    """Writes the four files; report.json last, so that where it is, the others are too.

    Args:
      report: as above; NumPy values are converted, NaN and infinity become None.
      runs: a dict for each trained run: a row of runs.csv.

    Raises:
      ValueError: when a key is missing or the task is unknown.
      Outage: when folder can't be written.
    """
    report = plain(report)
    _check(report)
    texts = {
        "runs.csv": runs_csv(runs),
        "report.md": markdown(report),
        "report.html": page(report),
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        write_json(folder / "report.json", report)


def plain(value: Any) -> Any:
    """The value as JSON holds it: no NumPy, and None for a number that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.datetime64):
        return str(value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "M":
        return np.datetime_as_string(value).tolist()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _check(report: dict) -> None:
    for part, keys in _KEYS.items():
        for entry in report[part] if part else [report]:
            if missing := [key for key in keys if key not in entry]:
                raise ValueError(f"the report lacks {', '.join(missing)} {part and f'in {part}'}")
    if report["task"] not in TASKS:
        raise ValueError(f"unknown task {report['task']!r}")


def runs_csv(runs: Sequence[dict]) -> str:
    """A row for each run; a column for every key, the usual ones first."""
    rows = [plain(run) for run in runs]
    extra = dict.fromkeys(key for row in rows for key in row if key not in _COLUMNS)
    file = io.StringIO()
    writer = csv.DictWriter(file, [*_COLUMNS, *extra], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def markdown(report: dict) -> str:
    """report.md."""
    found, control = report["data"], report["control"]
    scores, cost = words.scores(report), words.cost(report)
    parts = [f"# {_escaped(words.title(report))}"]
    parts += [_escaped(words.subtitle(report)), words.summary(report)]
    for verdicts in words.verdicts(report):
        lines = [
            f"{words.EQUAL[v['equal']]}: **{v['answer']}**. {_escaped(v['sentence'])} "
            f"({words.tested(v)})"
            for v in verdicts
        ]
        parts += [f"### {_escaped(verdicts[0]['question'])}", _bullets(lines)]
    if chosen := report["chosen"]:
        parts.append(f"Chosen: {_escaped(chosen['model'])}. {_escaped(chosen.get('why') or '')}")
    parts += ["## Scores", _escaped(scores.markdown(), whole=True)]
    parts += ["## Cost", cost.markdown() if cost else "Not measured."]
    if control:
        said = f"**{control['answer']}**: {_escaped(control['sentence'])}"
        parts += ["## Control", f"{said} ({words.tested(control)})"]
    parts += ["## Data", _bullets(map(_escaped, words.data(report)))]
    for key, heading in (("warnings", "Warnings"), ("notes", "What was mended")):
        if found.get(key):
            parts += [f"### {heading}", _bullets(map(_escaped, found[key]))]
    parts += ["## How it was done", _bullets(words.done(report))]
    if report["plan"].get("left_out"):
        parts += ["Left out:", _bullets(map(_escaped, report["plan"]["left_out"]))]
    parts += [" ".join(words.STATISTICS), words.machine(report)]
    commands = [*(report["commands"] or []), (report["chosen"] or {}).get("command")]
    lines = "\n".join(f"    {line}" for line in dict.fromkeys(filter(None, commands)))
    parts += ["## Commands", lines] if lines else []
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _bullets(lines: Any) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _escaped(text: str, whole: bool = False) -> str:
    """Markdown in which data can't be HTML, nor begin a line unless it is a whole block."""
    text = text.replace("<", "\\<")
    return text if whole else " ".join(text.split())


def console_table(report: dict) -> RichTable:
    """The scores for a terminal: floors, then networks, best first."""
    report = plain(report)
    table = words.scores(report)
    kept = [i for i, heading in enumerate(table.headings) if heading not in _metrics(report)]
    return table._replace(
        title=f"{words.metric(report)} on the test part; {words.better(report)}",
        headings=tuple(table.headings[i] for i in kept),
        rows=[tuple(row[i] for i in kept) for row in table.rows],
    ).rich()


def _metrics(report: dict) -> set[str]:
    """The further metrics, for which a terminal has no room."""
    entries = (*report["floors"], *report["models"])
    names = {name for entry in entries for name in entry.get("metrics") or {}}
    return names - {words.metric(report)}


def closing_lines(report: dict, folder: Path | None = None) -> list[str]:
    """What the terminal says at the end: warnings, verdicts, control, the winner, the files."""
    report = plain(report)
    lines = [f"warning: {line}" for line in report["data"].get("warnings") or []]
    lines.append(words.summary(report))
    for equal, name in words.EQUAL.items():
        those = [v for v in report["verdicts"] if v["equal"] == equal]
        lines += [f"{name}:"] * bool(those) + [f"  {v['answer']}: {v['sentence']}" for v in those]
    if report["control"]:
        lines.append(f"control: {report['control']['sentence']}")
    if chosen := report["chosen"]:
        at = f" in {chosen['workdir']}" if chosen.get("workdir") else ""
        lines.append(f"chosen: {chosen['model']}{at}")
        lines += [f"to predict: {chosen['command']}"] * bool(chosen.get("command"))
    if folder:
        lines.append(f"report: {folder / 'report.html'}")
    return lines
