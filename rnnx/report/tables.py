"""Tables of runs, with published numbers in columns of their own."""

import statistics
from collections.abc import Callable, Hashable, Sequence

from rnnx.cells import CELLS
from rnnx.config import show
from rnnx.duration import duration
from rnnx.errors import UserError
from rnnx.report import published
from rnnx.report.gaps import Gap, gaps, shown
from rnnx.report.runs import (
    INTEGRATION_NAMES,
    Group,
    Run,
    differing,
    grouped,
    mean_of,
)
from rnnx.report.table import Table, done, where

_SHOWN = ("epochs", "hidden_size")  # in columns of their own


def runs_table(runs: Sequence[Run]) -> Table:
    """One row for runs that differ only in their seed, best valid score first."""
    groups = grouped(runs)
    names = differing(groups)
    unit, digits = runs[0].unit, _digits(runs[0])
    sign = 1 if runs[0].task.lower_is_better else -1
    groups.sort(key=lambda g: (g.mean("valid") is None, sign * (g.mean("valid") or 0.0)))
    rows = []
    for group in groups:
        first = group.runs[0]
        seconds = [run.seconds[-1] for run in group.runs if run.seconds]
        rows.append((
            *(show(group.config[name]) for name in names),
            f"{group.config['hidden_size']:,}",
            f"{first.params:,}",
            done(group),
            *_ours(group, digits),
            duration(sum(seconds) / len(seconds)) if seconds else "-",
        ))  # fmt: skip
    headings = (*names, "units", "parameters", "epochs", "valid", "test", "seeds", "training")
    return Table(f"{unit.name}, full protocol", headings, rows, where(runs))


def rhn_depth(runs: Sequence[Run]) -> Table:
    """Perplexity by transition depth, beside the table of the RHN paper.

    Raises:
      UserError: when no run is of Penn Treebank words.
    """
    groups = grouped(_only(runs, "ptb_word"))
    groups.sort(key=lambda g: (g.config["cell"] != "rhn", g.config["depth"], g.config["cell"]))

    def name(config: dict) -> str:
        return str(config["depth"]) if config["cell"] == "rhn" else _network(config)

    rows = []
    for group, apart in zip(groups, _told_apart(groups, name), strict=True):
        config = group.config
        paper = published.RHN_DEPTH.get(config["depth"]) if _as_in_rhn_paper(config) else None
        published_values = ("", "", "", "")
        if paper:
            valid, test = (
                (paper.valid_tied, paper.test_tied) if config["tied"] else (paper.valid, paper.test)
            )
            published_values = (
                f"{paper.units:,}", f"{valid:.1f}", f"{test:.1f}", _difference(group, test, 1),
            )  # fmt: skip
        rows.append((
            name(config) + apart, f"{config['hidden_size']:,}", f"{group.runs[0].params:,}",
            done(group), *_ours(group, 1), *published_values,
        ))  # fmt: skip
    headings = (
        "L", "units", "parameters", "epochs", "valid", "test", "seeds",
        "paper's units", "paper's valid", "paper's test", "test - paper's",
    )  # fmt: skip
    title = "perplexity of Penn Treebank words by transition depth L"
    return Table(title, headings, rows, where(runs))


def mi_char(runs: Sequence[Run]) -> Table:
    """Cells with and without Multiplicative Integration on Penn Treebank characters.

    Raises:
      UserError: when no run is of Penn Treebank characters.
    """
    groups = grouped(_only(runs, "ptb_char"))
    order = ("rnn", "gru", "lstm", "rhn"), ("additive", "mi_simple", "mi")
    groups.sort(key=lambda g: tuple(
        names.index(g.config[field]) if g.config[field] in names else len(names)
        for field, names in zip(("cell", "integration"), order, strict=True)
    ))  # fmt: skip
    rows = []
    for group, apart in zip(groups, _told_apart(groups, _cell), strict=True):
        config = group.config
        paper = published.MI_CHAR.get(_cell_of_one_layer(config))
        rows.append((
            _network(config) + apart, INTEGRATION_NAMES[config["integration"]],
            f"{config['hidden_size']:,}", f"{group.runs[0].params:,}", done(group),
            *_ours(group, 3), paper.show(2) if paper else "",
            _difference(group, paper.value, 3) if paper else "",
        ))  # fmt: skip
    headings = (
        "cell", "integration", "units", "parameters", "epochs", "valid", "test", "seeds",
        "paper's test", "test - paper's",
    )  # fmt: skip
    title = "bits per character of Penn Treebank characters by integration"
    return Table(title, headings, rows, where(runs))


def mi_range(runs: Sequence[Run]) -> Table:
    """Bits per character by the range r of W ~ U(-r, r), beside the paper's table.

    Raises:
      UserError: when no run is of Penn Treebank characters.
    """
    groups = grouped(_only(runs, "ptb_char"))
    groups.sort(key=lambda g: (g.config["integration"], _range(g.config)))
    rows = []
    alike = _told_apart(groups, lambda config: (*_cell(config), _range(config)))
    for group, apart in zip(groups, alike, strict=True):
        config = group.config
        paper = published.MI_RANGE.get((config["integration"], _range(config)))
        plain = config["cell"] == "rnn" and config["num_layers"] == 1
        rows.append((
            _network(config) + apart, INTEGRATION_NAMES[config["integration"]],
            f"{_range(config):g}", f"{config['hidden_size']:,}", done(group), *_ours(group, 3),
            paper.show(2) if paper and plain else "",
        ))  # fmt: skip
    headings = (
        "cell", "integration", "r", "units", "epochs", "valid", "test", "seeds", "paper's test",
    )  # fmt: skip
    title = "bits per character of Penn Treebank characters by the range r of W"
    return Table(title, headings, rows, where(runs))


def optimization(runs: Sequence[Run]) -> Table:
    """The best of a search for each network and size: does it still train when deep?

    Train is the best of a run's epochs; valid and test are those of the run with the best valid
    score.
    """
    searches: dict[tuple, list[Run]] = {}
    for run in sorted(runs, key=lambda r: (_network(r.config), r.config["depth"])):
        searches.setdefault((*_cell(run.config), run.params), []).append(run)
    task, digits, rows = runs[0].task, _digits(runs[0]), []
    several = len({integration for _, integration, _ in searches}) > 1
    for (network, integration, params), members in searches.items():
        network += f" {INTEGRATION_NAMES[integration]}" * several
        complete = [run for run in members if run.complete]
        trained = [run.best_train for run in complete if run.best_train is not None]
        valid = task.best(run.scores["valid"] for run in complete) if complete else None
        best = [run for run in complete if run.scores["valid"] == valid][:1]
        rows.append((
            network, f"{members[0].config['hidden_size']:,}", f"{params:,}", str(len(members)),
            str(len(members) - len(complete)),
            *([f"{statistics.median(trained):.{digits}f}", f"{task.best(trained):.{digits}f}"]
              if trained else ["-", "-"]),
            *([*_ours(Group(best), digits)[:2], show(best[0].config["learning_rate"])]
              if best else ["-", "-", "-"]),
        ))  # fmt: skip
    headings = (
        "cell", "units", "parameters", "runs", "not complete", "median train", "best train",
        "valid", "test", "learning rate",
    )  # fmt: skip
    return Table(f"{runs[0].unit.name}: what a search found", headings, rows, where(runs))


def babi(runs: Sequence[Run]) -> Table:
    """Wrong answers to bAbI's tasks, each by a network of its own, MI beside the additive cell and
    published LSTMs.

    Raises:
      UserError: when no runs of bAbI's tasks with the same seeds differ in integration.
    """
    single = [run for run in runs if run.config["corpus"].startswith("babi/qa")]
    if not single:
        raise UserError("this table shows runs on babi/qa1 and so on: leave --table out")

    def number(gap: Gap) -> int:
        return int(gap.group.config["corpus"].removeprefix("babi/qa"))

    found = [gap for gap in gaps(single, "integration=additive") if gap.pairs]
    found.sort(key=number)
    rows = []
    for gap in found:
        theirs = published.BABI[number(gap)]
        rows.append((
            f"qa{number(gap)}", str(len(gap.pairs)), gap.baseline.show("test", 1),
            gap.group.show("test", 1), shown(gap.differences, 1),
            *(f"{100 - accuracy:.1f}" for accuracy in theirs),
        ))  # fmt: skip
    if [number(gap) for gap in found] == list(published.BABI):
        rows.append(_mean_of_tasks(found))
    headings = (
        "task", "seeds", "additive", "with MI", "gap (95 %)", "LSTM of Weston et al. (c)",
        "LSTMs of Keras' example",
    )  # fmt: skip
    return Table("wrong answers, %", headings, rows, where(single))


def _mean_of_tasks(found: Sequence[Gap]) -> tuple[str, ...]:
    """A row of `babi`: each seed's mean over all tasks, of the seeds that all of them have."""
    of = found[0].group.unit.of
    each = [{run.config["seed"]: pair for pair in gap.pairs for run in pair} for gap in found]
    seeds = set.intersection(*map(set, each))
    ours, base = (
        [statistics.fmean(of(pairs[seed][side].scores["test"]) for pairs in each) for seed in seeds]
        for side in (0, 1)
    )
    columns = zip(*published.BABI.values(), strict=True)
    return (
        "mean", str(len(seeds)), mean_of(base, 1), mean_of(ours, 1),
        shown([a - b for a, b in zip(ours, base, strict=True)], 1),
        *(f"{100 - statistics.fmean(column):.1f}" for column in columns),
    )  # fmt: skip


TABLES: dict[str, Callable[[Sequence[Run]], Table]] = {
    "runs": runs_table,
    "rhn_depth": rhn_depth,
    "mi_char": mi_char,
    "mi_range": mi_range,
    "optimization": optimization,
    "babi": babi,
}


def _network(config: dict) -> str:
    """`LSTM`, `2 x LSTM` or `RHN L=5`."""
    name = CELLS[config["cell"]].name
    depth = f" L={config['depth']}" if CELLS[config["cell"]].deep else ""
    return (f"{config['num_layers']} x " if config["num_layers"] > 1 else "") + name + depth


def _cell(config: dict) -> tuple[str, str]:
    return _network(config), config["integration"]


def _told_apart(groups: Sequence[Group], key: Callable[[dict], Hashable]) -> list[str]:
    """For each group a suffix to its name: the other fields in which groups of the same key
    differ, or nothing."""
    keys = [key(group.config) for group in groups]
    behind = []
    for group, own in zip(groups, keys, strict=True):
        alike = [g for g, k in zip(groups, keys, strict=True) if k == own]
        fields = differing(alike) if len(alike) > 1 else ()
        behind.append("".join(
            f", {f}={show(group.config[f])}" for f in fields if f not in _SHOWN
        ))  # fmt: skip
    return behind


def _as_in_rhn_paper(config: dict) -> bool:
    plain = config["cell"] == "rhn" and config["integration"] == "additive"
    return plain and config["coupled"] and config["num_layers"] == 1


def _cell_of_one_layer(config: dict) -> tuple[str, str] | None:
    return (config["cell"], config["integration"]) if config["num_layers"] == 1 else None


def _range(config: dict) -> float:
    return config["input_scale"] or config["init_scale"]


def _only(runs: Sequence[Run], corpus: str) -> list[Run]:
    if not (found := [run for run in runs if run.config["corpus"] == corpus]):
        raise UserError(f"this table shows runs on {corpus}, and there are none: leave --table out")
    return found


def _ours(group: Group, digits: int) -> tuple[str, str, str]:
    """Our valid and test scores, and the number of seeds."""
    return group.show("valid", digits), group.show("test", digits), str(len(group.values("valid")))


def _difference(group: Group, theirs: float, digits: int) -> str:
    mean = group.mean("test")
    return "" if mean is None else f"{mean - theirs:+.{digits}f}"


def _digits(run: Run) -> int:
    return run.unit.digits - 1
