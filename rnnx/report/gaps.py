"""What a change of the network is worth: differences to a baseline, with intervals."""

import contextlib
import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rnnx import config as configs
from rnnx.config import show
from rnnx.duration import duration
from rnnx.errors import UserError
from rnnx.report import plots
from rnnx.report.runs import Group, Run, differing, grouped, named
from rnnx.report.significance import Comparison, Losses, compare
from rnnx.report.table import Table, done, where

_IN_COLUMNS = ("epochs", "hidden_size", "param_budget")


class Gap(NamedTuple):
    """A group of runs against its baseline, over the seeds that both have."""

    group: Group
    baseline: Group
    pairs: list[tuple[Run, Run]]  # of one seed: a run of the group, one of the baseline

    @property
    def differences(self) -> list[float]:
        """Test score of the group less that of the baseline, by seed, in their unit."""
        of = self.group.unit.of
        return [of(run.scores["test"]) - of(base.scores["test"]) for run, base in self.pairs]

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 %, as `interval` of the differences."""
        return interval(self.differences)

    @property
    def relative(self) -> Comparison | None:
        """The relative gap, its interval over seeds and blocks of the test part together
        (`significance.compare`); None for fewer than two pairs, and where the runs do not have the
        same blocks."""
        if len(self.pairs) < 2:
            return None
        sides = [[np.array(run.blocks) for run in runs] for runs in zip(*self.pairs, strict=True)]
        if not sides or any(len(b) != 2 for side in sides for b in side):
            return None
        count = sides[0][0][1]
        if any(not np.array_equal(b[1], count) for side in sides for b in side):
            return None
        losses = [
            Losses(np.stack([b[0] for b in side]), count, np.arange(len(count))) for side in sides
        ]
        return compare(*losses)


def interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """95 %, by Student's t over the seeds' differences; None for fewer than two.

        mean +- t(k - 1) s / sqrt(k)

    It covers other seeds on this test split, not other texts.
    """
    from scipy import special

    k = len(differences)
    if k < 2:
        return None
    mean, spread = statistics.fmean(differences), statistics.stdev(differences)
    half = float(special.stdtrit(k - 1, 0.975)) * spread / math.sqrt(k)
    return mean - half, mean + half


def gaps(runs: Sequence[Run], against: str) -> list[Gap]:
    """Every group of runs with the group to compare it with.

    Args:
      against: `FIELD=VALUE;...`, what a baseline has. Of several, the baseline of a group is the
        one of the same corpus that agrees with it in most fields that hold no fractions: what was
        tuned, like the learning rate, may differ. A group without a baseline is left out.

    Raises:
      UserError: when no group has these values, several agree equally well, or none is left.
    """
    groups = grouped(run for run in runs if "test" in run.scores)
    wanted = _values(against)
    bases = [g for g in groups if all(_is(g.config.get(k), v) for k, v in wanted.items())]
    if not bases:
        raise UserError(f"no finished runs have {against}: name another --against")
    if len(bases) == len(groups):
        raise UserError(f"all finished runs have {against}: there is nothing to compare")
    fields = [f for f in _whole(groups) if f not in wanted]
    found = []
    for group in (g for g in groups if g not in bases):
        # Scores of two corpora can't be compared, unless just that is asked for.
        own = [
            b for b in bases if "corpus" in wanted or b.config["corpus"] == group.config["corpus"]
        ]
        if not own:
            continue
        agree = [sum(group.config.get(f) == base.config.get(f) for f in fields) for base in own]
        nearest = [b for b, count in zip(own, agree, strict=True) if count == max(agree)]
        if len(nearest) > 1:
            names = ", ".join(differing(nearest))
            raise UserError(f"several runs could be the baseline: say in --against which {names}")
        pairs = [
            (run, base)
            for run in group.runs
            for base in nearest[0].runs
            if run.config["seed"] == base.config["seed"]
        ]
        # All columns of a row are of the same seeds.
        both = (Group(list(side)) for side in zip(*pairs, strict=True))
        found.append(Gap(*both, pairs) if pairs else Gap(group, nearest[0], pairs))
    if not found:
        raise UserError(f"no finished runs of the same corpus have {against}")
    return found


def gaps_table(found: Sequence[Gap], against: str) -> Table:
    """One row a group: its test score beside the baseline's, the gap with its interval, and when
    each reaches the other's best valid score."""
    groups = [gap.group for gap in found] + [gap.baseline for gap in found]
    names = telling(found)
    tuned = [name for name in differing(groups) if name not in (*names, *_IN_COLUMNS)]
    unit = groups[0].unit
    digits = max(unit.digits - 1, 1)
    relative = [gap.relative for gap in found]
    blocks = any(relative)
    rows = []
    for gap, by_block in zip(found, relative, strict=True):
        config = gap.group.config
        rows.append((
            label(config, names),
            f"{gap.group.runs[0].params:,}",
            done(gap.group),
            str(len(gap.pairs)),
            gap.baseline.show("test", digits),
            gap.group.show("test", digits),
            shown(gap.differences, digits),
            *([_relative(by_block)] if blocks else []),
            _when(gap.pairs),
            _when([(base, run) for run, base in gap.pairs]),
            _training(gap.group),
            *(show(config[name]) for name in tuned),
        ))  # fmt: skip
    headings = (
        "network", "parameters", "epochs", "seeds", "baseline", "test", "gap (95 %)",
        *(["relative (95 %, test blocks too)"] if blocks else []), "as good as baseline after",
        "baseline as good after", "training", *tuned,
    )  # fmt: skip
    return Table(
        f"{unit.name} against {against}",
        headings,
        rows,
        where([run for group in groups for run in group.runs]),
    )


def gap_curves(found: Sequence[Gap]) -> Figure | None:
    """The gap in valid score by epoch: the mean over seeds, and their range as a band.

    It shows how much of a gap is speed of learning. None without two epochs of a pair.
    """
    drawn = [
        gap for gap in found if any(len(a.valid) > 1 and len(b.valid) > 1 for a, b in gap.pairs)
    ]
    if not drawn:
        return None
    figure, axes = plots.blank()
    names = telling(found)
    texts = [label(gap.group.config, names) for gap in drawn]
    for i, (gap, text) in enumerate(zip(drawn, texts, strict=True)):
        if texts.count(text) > 1:  # of several sizes
            text = f"{text}, {gap.group.runs[0].params:,} parameters"
        epochs = min(len(run.valid) for pair in gap.pairs for run in pair)
        of = gap.group.unit.of
        curves = [
            [of(a) - of(b) for a, b in zip(run.valid[:epochs], base.valid[:epochs], strict=True)]
            for run, base in gap.pairs
        ]
        columns = list(zip(*curves, strict=True))
        x, style = range(1, epochs + 1), plots.style_of(i)
        axes.plot(
            x,
            [statistics.fmean(c) for c in columns],
            label=text,
            **style,
        )
        low, high = [min(c) for c in columns], [max(c) for c in columns]
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.axhline(0.0, color="0.4", linewidth=0.8)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"gap to the baseline, valid, {drawn[0].group.unit.name}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return figure


def reaches(run: Run, other: Run) -> float | None:
    """After how many epochs a run's valid score is as good as the other's best ever is.

    Between two epochs the score is taken to change evenly; within the first, nothing is known.
    None: it never is.
    """
    sign = 1 if run.task.lower_is_better else -1
    goal = min((sign * score for score in other.valid), default=-math.inf)
    before = math.inf
    for epoch, score in enumerate((sign * score for score in run.valid), start=1):
        if score <= goal:
            return epoch if math.isinf(before) else epoch - 1 + (before - goal) / (before - score)
        before = score
    return None


def _when(pairs: Sequence[tuple[Run, Run]]) -> str:
    """The mean of `reaches` over the seeds that do: `12.3`, `12.3 (2 of 5 seeds)`, `never`."""
    found = [epochs for run, other in pairs if (epochs := reaches(run, other)) is not None]
    if not found:
        return "never" if pairs else "-"
    some = f" ({len(found)} of {len(pairs)} seeds)" if len(found) < len(pairs) else ""
    return f"{statistics.fmean(found):.1f}{some}"


def shown(differences: Sequence[float], digits: int) -> str:
    """The mean of differences with its interval: `-0.076 (-0.101 to -0.052)`."""
    text = f"{statistics.fmean(differences):+.{digits}f}" if differences else "-"
    if found := interval(differences):
        low, high = (f"{end:+.{digits}f}" for end in found)
        text += f" ({low} to {high})"
    return text


def _relative(found: Comparison | None) -> str:
    if found is None:
        return "-"
    return f"{found.difference:+.0%} ({found.low:+.0%} to {found.high:+.0%})"


def telling(found: Sequence[Gap]) -> list[str]:
    """The fields that tell networks apart, beside those that have columns or were tuned."""
    groups = [gap.group for gap in found] + [gap.baseline for gap in found]
    return [name for name in _whole(groups) if name not in _IN_COLUMNS]


def label(config: dict[str, Any], names: Sequence[str]) -> str:
    """A network by these fields: `LSTM general MI`."""
    return " ".join(filter(None, (named(config, name) for name in names)))


def _training(group: Group) -> str:
    """The mean time that a run of a group trained."""
    seconds = [run.seconds[-1] for run in group.runs if run.seconds]
    return duration(statistics.fmean(seconds)) if seconds else "-"


def _values(against: str) -> dict[str, str]:
    """`cell=rnn;depth=1` to the text of each field. Raises UserError for an unknown field."""
    pairs = [part.partition("=") for part in filter(None, map(str.strip, against.split(";")))]
    for name, _, value in pairs:
        if name not in configs.FIELDS or not value:
            hint = configs.nearest(name, configs.FIELDS)
            raise UserError(f"--against takes FIELD=VALUE;..., not {name}={value}; {hint}")
    return {name: value for name, _, value in pairs}


def _is(value: Any, text: str) -> bool:
    if isinstance(value, float):
        with contextlib.suppress(ValueError):
            return float(text) == value or text == show(value)
    return text.lower() in (show(value).lower(), str(value).lower())


def _whole(groups: Sequence[Group]) -> list[str]:
    """The fields in which groups differ and that hold no fractions."""
    kinds = {name: type(field.default) for name, field in configs.FIELDS.items()}
    return [name for name in differing(groups) if kinds[name] not in (float, tuple)]
