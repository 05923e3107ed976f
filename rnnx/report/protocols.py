"""What a change of the network is worth by a protocol that gives several scores."""

from collections.abc import Sequence

from rnnx.errors import UserError
from rnnx.report.gaps import Gap, label, shown, telling
from rnnx.report.runs import Run, mean_of
from rnnx.report.table import Table, where

_DIGITS = 4


def protocol_table(found: Sequence[Gap], protocol: str, against: str) -> Table:
    """One row for each score and network: beside its baseline's, with the gap over the seeds that
    both were evaluated with.

    A score whose name begins with another's and a space (`TREC`, `TREC tf-idf`) is a floor of it,
    and has a column.

    Raises:
      UserError: when no pair of runs has been evaluated by the protocol.
    """
    rows, runs = [], []
    names = telling(found)
    for gap in found:
        pairs = [pair for pair in gap.pairs if all(protocol in run.evaluations for run in pair)]
        runs += [run for pair in pairs for run in pair]
        rows += [(gap, pairs, name) for name in _scores(pairs, protocol)]
    if not rows:
        raise UserError(
            f"no two runs to compare have {protocol}: python -m rnnx.evaluate --workdir=RUN "
            f"--protocol={protocol} adds it to a finished run"
        )
    floors = list(
        dict.fromkeys(f for _, pairs, name in rows for f in _floors(pairs, protocol, name))
    )
    texts = []
    for gap, pairs, name in rows:
        ours, base = (
            [run.evaluations[protocol][name] for run in side] for side in zip(*pairs, strict=True)
        )
        given = _floors(pairs, protocol, name)
        texts.append((
            label(gap.group.config, names), name, str(len(pairs)),
            mean_of(base, _DIGITS), mean_of(ours, _DIGITS),
            shown([a - b for a, b in zip(ours, base, strict=True)], _DIGITS),
            *(mean_of(given[floor], _DIGITS) if floor in given else "-" for floor in floors),
        ))  # fmt: skip
    headings = ("network", "score", "seeds", "baseline", "test", "gap (95 %)", *floors)
    return Table(f"{protocol} against {against}", headings, texts, where(runs))


def _scores(pairs: Sequence[tuple[Run, Run]], protocol: str) -> list[str]:
    """The scores that all runs of pairs have, floors left out."""
    each = [run.evaluations[protocol] for pair in pairs for run in pair]
    names = [name for name in each[0] if all(name in own for own in each)] if each else []
    return [name for name in names if not any(name.startswith(f"{other} ") for other in names)]


def _floors(pairs: Sequence[tuple[Run, Run]], protocol: str, name: str) -> dict[str, list[float]]:
    """The floors of a score, by what they are, of the networks that are not the baseline."""
    own = [run.evaluations[protocol] for run, _ in pairs]
    start = f"{name} "
    return {
        other.removeprefix(start): [scores[other] for scores in own]
        for other in own[0]
        if other.startswith(start) and all(other in scores for scores in own)
    }
