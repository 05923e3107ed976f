"""The model card: what a network is, what it learned from, how well it does, how to run it."""

import re
from pathlib import Path
from typing import Any

from rnnx import workdir
from rnnx.cells import CELLS
from rnnx.data.catalogue import LICENCES
from rnnx.errors import UserError
from rnnx.export.parity import Row
from rnnx.trained import Run

_RUN = {
    "onnx": """    import onnxruntime

    session = onnxruntime.InferenceSession("{file}")
    results = session.run(None, {{{feed}}})
""",
    "stablehlo": """    from rnnx.export.stablehlo import load_stablehlo

    network = load_stablehlo("{file}")
    results = network({{{feed}}})
""",
    "safetensors": """    from safetensors.numpy import load_file

    weights = load_file("{file}")     # by name: layers.0.block1.W is W of the first layer's block 1
""",
}
_STEP = """
One step at a time, with the state kept, by NumPy and onnxruntime alone:

    from rnnx.runtime import Stream

    stream = Stream("{step}")
    y = stream.step(x)
"""


def card(
    run: Run, about: dict[str, Any], kind: str, files: list[Path], title: str, rows: list[Row]
) -> str:
    """The card's Markdown.

    Args:
      files: those that were written, the sequence first.
      title, rows: the comparison with rnnx.
    """
    config, unit = run.config, run.task.unit(run.config)
    corpus = about["config"]["corpus"]
    feed = {name: name for name in about["inputs"]}
    feed |= {f"state.{k}": f"state_{k}" for k in range(len(about["state"]))}
    given = ", ".join(f'"{name}": {value}' for name, value in feed.items())
    told = workdir.read_json(run.folder / "run.json", workdir.FORMAT)
    name = files[0].name.removesuffix(files[0].suffix)
    how = _RUN[kind].format(file=files[0].name, feed=given)
    if kind == "onnx" and len(files) > 1:
        how += _STEP.format(step=files[1].name)
    lines = [
        f"# {plain(name)}",
        "",
        f"{_network(config)}, for the task `{about['task']}`, trained by rnnx {about['rnnx']}.",
        "",
        "## Size",
        "",
        f"{about['parameters']:,} parameters. "
        + ", ".join(f"`{f.name}` {_bytes(f.stat().st_size)}" for f in files),
        "",
        "## Data",
        "",
        f"{plain(corpus or about['task'])}: {_licence(corpus)}",
        "",
        *(f"- {plain(file)}, sha256 `{code(total)}`" for file, total in about["data"].items()),
        "",
        "## Scores",
        "",
        *_scores(run, unit),
        *_compared(unit, title, rows),
        "",
        "## Inputs and outputs",
        "",
        "| name | shape | type |",
        "|---|---|---|",
        *(
            f"| `{name}` | ({', '.join(map(str, of['axes']))}) | {of['type']} |"
            for name, of in about["inputs"].items()
        ),
        *(
            f"| `state.{k}`, `next_state.{k}` | (batch, {', '.join(map(str, shape))}) | float32 |"
            for k, shape in enumerate(about["state"])
        ),
        f"| `outputs` | {plain(about['meaning'])} | float32 |",
        "",
        "Vocabulary or scaling are in the file's metadata (`rnnx`, JSON: `spec`), with the config.",
        "The zero state is zeros." if about["state"] else "",
        "",
        "## To run it",
        "",
        how,
        "## To train it again",
        "",
        f"    {code(told.get('command') or 'unknown')}",
        "",
        f"with the commit `{code(told.get('git') or 'unknown')}` of rnnx and the data above.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def plain(text: Any) -> str:
    """Text from a run, which may be a stranger's, as one line that Markdown does not interpret."""
    return re.sub(r"([\\`*_\[\]<>|#!~&])", r"\\\1", _line(text))


def code(text: Any) -> str:
    """The same for a place where Markdown shows what it finds."""
    return _line(text).replace("`", "'")


def _line(text: Any) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def _network(config: Any) -> str:
    meeting = {"mi": "general", "mi_simple": "simple"}.get(config.integration)
    named = CELLS[config.cell].name + (
        f" with {meeting} Multiplicative Integration" * bool(meeting)
    )
    parts = [named, f"{config.hidden_size:,} units"]
    parts += [f"transition depth {config.depth}"] if config.depth > 1 else []
    parts += [f"{config.num_layers} layers"] if config.num_layers > 1 else []
    parts += ["bidirectional"] if config.get("bidirectional") else []
    return ", ".join(parts)


def _licence(corpus: str) -> str:
    return LICENCES.get(corpus.partition("/")[0], "your own data; its licence is yours to state")


def _scores(run: Run, unit: Any) -> list[str]:
    """Those of training's end, by protocol `full`."""
    try:
        result = workdir.read_json(run.folder / "result.json", workdir.FORMAT)
        found = {
            split: result[split][run.task.primary]
            for split in ("valid", "test")
            if result.get(split)
        }
        return [f"- {split}, protocol `full`: {unit.show(x)}" for split, x in found.items()]
    except (UserError, KeyError, TypeError):
        return ["- training has not ended yet"]


def _compared(unit: Any, title: str, rows: list[Row]) -> list[str]:
    """The comparison as a table."""
    if not rows:
        return ["", title]
    lines = ["", f"Compared with rnnx on {title}:", ""]
    lines += [f"| | {unit.name} | largest difference |", "|---|---|---|"]
    for row in rows:
        score, away = row.told(unit, rows[0].score)
        lines.append(f"| {plain(row.name)} | {score} | {away} |")
    return lines


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"
