"""The networks that are compared."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from rnnx.config import nearest
from rnnx.errors import UserError

REFERENCE = "lstm"


class Candidate(NamedTuple):
    """A cell, as it is named in flags and files, and in tables."""

    key: str
    name: str
    cell: str
    integration: str = "additive"
    depth: int = 1

    @property
    def point(self) -> dict[str, Any]:
        """The config fields that make it."""
        return {"cell": self.cell, "integration": self.integration, "depth": self.depth}


# In the order in which they are kept when time is short.
CANDIDATES = {
    c.key: c
    for c in (
        Candidate("lstm", "LSTM", "lstm"),
        Candidate("mi-lstm", "MI-LSTM", "lstm", "mi"),
        Candidate("rhn-2", "RHN L=2", "rhn", depth=2),
        Candidate("gru", "GRU", "gru"),
        Candidate("mi-gru", "MI-GRU", "gru", "mi"),
        Candidate("mi-rnn", "MI-RNN", "rnn", "mi"),
        Candidate("mi-rhn-2", "MI-RHN L=2", "rhn", "mi", 2),
        Candidate("mingru", "minGRU", "mingru"),
        Candidate("slstm", "sLSTM", "slstm"),
        Candidate("rnn", "RNN", "rnn"),
        Candidate("rhn-5", "RHN L=5", "rhn", depth=5),
        Candidate("mi-rhn-5", "MI-RHN L=5", "rhn", "mi", 5),
    )
}


def chosen(text: str) -> list[Candidate]:
    """The candidates of `--cells`; all for "". The LSTM, the reference, is always among them.

    Raises:
      UserError: on an unknown name.
    """
    keys: Iterable[str] = [key.strip().lower() for key in text.split(",") if key.strip()]
    keys = list(dict.fromkeys([REFERENCE, *keys])) if keys else list(CANDIDATES)
    for key in keys:
        if key not in CANDIDATES:
            raise UserError(f"unknown cell {key!r} in --cells; {nearest(key, CANDIDATES)}")
    return [c for key, c in CANDIDATES.items() if key in keys]
