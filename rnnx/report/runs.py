"""Runs for tables and plots, read from workdirs or from data files."""

import json
import math
import shlex
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rnnx import config as configs
from rnnx import tasks, workdir
from rnnx.cells import CELLS
from rnnx.config import show
from rnnx.errors import UserError
from rnnx.tasks.task import BLOCKS, Task, Unit

FORMAT = 1  # of a data file
# Fields that do not distinguish experiments: seeds, places, and how a run was computed.
_PLACES = ("data_dir", "checkpoint_every", "snapshot_every")
_SAME_RUN = ("seed", *_PLACES)
_NOT_TRIED = (*_SAME_RUN, "eval_tokens", "dtype", "remat", "embed_size")


INTEGRATION_NAMES = {"additive": "additive", "mi_simple": "simple MI", "mi": "general MI"}


@dataclass
class Run:
    """One run: config, learning curve, and scores if it is complete."""

    name: str
    config: dict[str, Any]
    params: int
    command: str
    git: str
    device: str
    epoch: list[int] = field(default_factory=list)  # counted from 1
    # Primary scores, with dropout, by epoch; None where every batch was passed over.
    train: list[float | None] = field(default_factory=list)
    valid: list[float] = field(default_factory=list)  # the same by the batched protocol
    seconds: list[float] = field(default_factory=list)  # of training so far
    tokens_per_second: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)  # full protocol: valid, test
    blocks: list[list[float]] = field(default_factory=list)  # of the test score: sums and counts
    # What rnnx.evaluate said of the test split, by protocol.
    evaluations: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """What it learned."""
        return tasks.of(self.config)

    @property
    def unit(self) -> Unit:
        """The unit of its scores."""
        return self.task.unit(self.config)

    @property
    def best_train(self) -> float | None:
        """The best training score of its epochs, in its unit; None if there is none."""
        known = [score for score in self.train if score is not None]
        return self.unit.of(self.task.best(known)) if known else None

    def shown(self, scores: Iterable[float]) -> list[float]:
        """Scores in their unit."""
        return [self.unit.of(score) for score in scores]

    @property
    def complete(self) -> bool:
        return bool(self.scores)


def read(paths: Sequence[Path]) -> list[Run]:
    """All runs in folders, at any depth, and in data files, by name; each once, though it may be in
    several.

    Raises:
      UserError: when a path is neither, or there is no run at all.
    """
    runs: list[Run] = []
    for path in paths:
        if path.is_file():
            runs += from_file(path)
            continue
        if not path.is_dir():
            raise UserError(f"{path} is neither a folder nor a data file of runs")
        folders = sorted(p.parent for p in path.rglob("config.json"))
        runs += [read_run(folder) for folder in folders if (folder / "run.json").exists()]
    if not runs:
        raise UserError(f"no runs in {', '.join(map(str, paths))}")
    return _each_once(runs)


def _each_once(runs: Iterable[Run]) -> list[Run]:
    """The first complete run of each config and seed, or the first."""
    found: dict[str, Run] = {}
    for run in runs:
        key = json.dumps({k: v for k, v in run.config.items() if k not in _PLACES}, sort_keys=True)
        if key not in found or (run.complete and not found[key].complete):
            found[key] = run
    return list(found.values())


def read_run(folder: Path) -> Run:
    """The run of a workdir, as far as it is written. Raises UserError when it is none."""
    config = workdir.read_config(folder)
    about = workdir.read_json(folder / "run.json", workdir.FORMAT)
    run = Run(
        folder.name,
        config.to_dict(),
        sum(math.prod(shape) for shape in about.get("parameters", {}).values()),
        about.get("command", ""),
        about.get("git", ""),
        about.get("device", ""),
    )
    metrics, primary = folder / "metrics.jsonl", run.task.primary
    for line in metrics.read_text().splitlines() if metrics.exists() else ():
        if '"kind": "epoch"' not in line:
            continue
        try:
            values = json.loads(line)
        except ValueError:
            continue  # the last line of a run still being written
        run.epoch.append(values["epoch"] + 1)
        run.train.append(values[f"train_{primary}"])
        run.valid.append(values[f"valid_batched_{primary}"])
        run.seconds.append(values["seconds"])
        run.tokens_per_second = values["tokens_per_second"]
    if (folder / "result.json").exists():
        result = workdir.read_json(folder / "result.json", workdir.FORMAT)
        run.scores = {s: result[s][primary] for s in ("valid", "test") if s in result}
        run.blocks = result.get("test", {}).get(BLOCKS, [])
        run.tokens_per_second = result["tokens_per_second"]
        run.git = result["git"]
        run.evaluations = _evaluations(folder, result["epoch"])
    return run


def _evaluations(folder: Path, epoch: int) -> dict[str, dict[str, float]]:
    """The last scores by each protocol of the test split, of the parameters of an epoch."""
    kept, found = folder / "evaluations.jsonl", {}
    if not kept.exists():
        return found
    from rnnx.evaluate import SETTINGS  # a quarter of a second to import

    for text in kept.read_text("utf-8").splitlines():
        try:
            line = json.loads(text)
            protocol, at = line["protocol"], (line["split"], line["checkpoint"]["epoch"])
        except (ValueError, TypeError, KeyError):
            continue  # the last line of an evaluation still being written, or none of ours
        if at == ("test", epoch) and not line.get("max_tokens"):  # of all of the test split
            others = ("seconds", *SETTINGS.get(protocol, ()))
            found[protocol] = {
                name: value
                for name, value in line.items()
                if isinstance(value, float) and name not in others
            }
    return found


def to_file(runs: Sequence[Run], path: Path) -> None:
    """Writes a data file: of each run the config fields that differ from the defaults, numbers to
    5 digits, and the command with a workdir of the run's name."""
    records = []
    for run in runs:
        record = asdict(run)
        record["config"] = {
            name: value
            for name, value in run.config.items()
            if name != "data_dir" and value != configs.FIELDS[name].default
        }
        record["command"] = shlex.join(
            f"--workdir=runs/{run.name}" if word.startswith("--workdir=") else word
            for word in shlex.split(run.command)
            if not word.startswith("--config.data_dir=")
        )
        for name in ("blocks", "evaluations"):
            if not record[name]:
                del record[name]
        for name in ("train", "valid", "seconds"):
            record[name] = [v if v is None else float(f"{v:.5g}") for v in record[name]]
        records.append(record)
    lines = ",\n".join(json.dumps(record) for record in records)
    path.write_text(f'{{"format": {FORMAT}, "runs": [\n{lines}\n]}}\n', encoding="utf-8")


def from_file(path: Path) -> list[Run]:
    """The runs of a data file. Raises UserError when it is none."""
    data = workdir.read_json(path)
    if data.get("format") != FORMAT or not isinstance(data.get("runs"), list):
        raise UserError(f"{path} is no data file of runs (format {FORMAT})")
    try:
        runs = [Run(**record) for record in data["runs"]]
    except TypeError as error:
        raise UserError(f"{path} is no data file of runs: {error}") from None
    for run in runs:
        fields = {"format": configs.FORMAT, **run.config}
        config = tasks.config_from_json(fields, str(path))
        run.config = config.to_dict()
    return runs


@dataclass
class Group:
    """Runs that differ only in their seed."""

    runs: list[Run]

    @property
    def config(self) -> dict[str, Any]:
        return self.runs[0].config

    @property
    def task(self) -> Task:
        return self.runs[0].task

    @property
    def unit(self) -> Unit:
        return self.runs[0].unit

    def mean(self, split: str) -> float | None:
        """Mean over the seeds of a split's score, in its unit; None if none is complete."""
        values = self.values(split)
        return statistics.fmean(values) if values else None

    def values(self, split: str) -> list[float]:
        """Each complete run's score of a split, in its unit; a run may have left test unread."""
        return [run.unit.of(run.scores[split]) for run in self.runs if split in run.scores]

    def show(self, split: str, digits: int) -> str:
        """`1.523`, or `1.523 ± 0.004` over several seeds (sample standard deviation)."""
        return mean_of(self.values(split), digits)


def mean_of(values: Sequence[float], digits: int) -> str:
    """`1.523`, or `1.523 ± 0.004` of several values; `-` of none."""
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Groups runs that differ only in their seed, in order of first appearance."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = {k: v for k, v in run.config.items() if k not in _SAME_RUN}
        groups.setdefault(json.dumps(key, sort_keys=True), []).append(run)
    return [Group(members) for members in groups.values()]


def differing(groups: Sequence[Group]) -> list[str]:
    """The config fields in which groups differ, in the order of the config."""
    names = [name for name in configs.FIELDS if name not in _NOT_TRIED]
    if len({g.config["param_budget"] for g in groups} - {0}) == 1:
        names.remove("hidden_size")  # follows from the budget
    return [name for name in names if len({str(g.config.get(name)) for g in groups}) > 1]


def labels(groups: Sequence[Group]) -> list[str]:
    """What distinguishes each group: `RHN L=5 general MI`, `learning_rate=0.1`; or the name of its
    first run."""
    names = differing(groups)
    return [
        " ".join(filter(None, (named(group.config, name) for name in names))) or group.runs[0].name
        for group in groups
    ]


def named(config: dict[str, Any], name: str) -> str:
    """A field's value as a label: `RHN`, `general MI`, `L=5`, `learning_rate=0.1`."""
    if name == "cell":
        return CELLS[config[name]].name
    if name == "integration":
        return INTEGRATION_NAMES[config[name]]
    if name == "depth":
        return f"L={config[name]}" if CELLS[config["cell"]].deep else ""
    return f"{name}={show(config[name])}"
