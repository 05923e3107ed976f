"""What the papers print, each number with how sure it is.

V  read in the authors' published code or README
C  quoted by another paper
M  recalled, not re-read: shown with a "~"
"""

from typing import NamedTuple


class Value(NamedTuple):
    """A published number and its mark."""

    value: float
    mark: str

    def show(self, digits: int) -> str:
        """`66.0`, `1.39 (c)` or `~1.42`."""
        number = f"{self.value:.{digits}f}"
        return {"V": number, "C": f"{number} (c)", "M": f"~{number}"}[self.mark]


class Depth(NamedTuple):
    """A row of the RHN paper's Penn Treebank depth table: units, and perplexities."""

    units: int
    valid: float
    test: float
    valid_tied: float
    test_tied: float


# Zilly et al. 2017, arXiv:1607.03474v5, by transition depth L; all V.
RHN_DEPTH = {
    1: Depth(1275, 92.4, 89.2, 93.2, 90.6),
    2: Depth(1180, 79.0, 76.3, 76.9, 75.1),
    3: Depth(1110, 75.0, 72.6, 72.7, 70.6),
    4: Depth(1050, 73.3, 70.9, 70.8, 68.6),
    5: Depth(1000, 72.0, 69.8, 69.7, 67.7),
    6: Depth(960, 71.9, 69.3, 69.1, 66.6),
    7: Depth(920, 71.7, 68.7, 68.7, 66.4),
    8: Depth(890, 71.2, 68.5, 68.2, 66.1),
    9: Depth(860, 71.3, 68.5, 68.1, 66.0),
    10: Depth(830, 71.3, 68.3, 68.3, 66.0),
}

# Wu et al. 2016, arXiv:1606.06630, Penn Treebank characters, test BPC by (cell, integration).
MI_CHAR = {
    ("rnn", "additive"): Value(1.42, "M"),
    ("rnn", "mi"): Value(1.39, "C"),
    ("linearrnn", "mi"): Value(1.48, "M"),
}

# The same paper's table over the range r of W: test BPC by (integration, r).
MI_RANGE = {
    ("additive", 0.02): Value(1.69, "M"),
    ("additive", 0.1): Value(1.65, "M"),
    ("additive", 0.3): Value(1.57, "M"),
    ("additive", 0.6): Value(1.54, "M"),
    ("mi", 0.02): Value(1.39, "M"),
    ("mi", 0.1): Value(1.40, "M"),
    ("mi", 0.3): Value(1.40, "M"),
    ("mi", 0.6): Value(1.41, "M"),
}

# bAbI's tasks, 1,000 questions each, accuracy in %: the LSTM of Weston et al. 2015,
# arXiv:1502.05698 (C), and the two LSTMs of an example of Keras, which quotes it (V).
BABI = {
    1: (50, 100),
    2: (20, 50),
    3: (20, 20.5),
    4: (61, 62.9),
    5: (70, 61.9),
    6: (48, 50.7),
    7: (49, 78.9),
    8: (45, 77.2),
    9: (64, 64),
    10: (44, 47.7),
    11: (72, 74.9),
    12: (74, 76.4),
    13: (94, 94.4),
    14: (27, 34.8),
    15: (21, 32.4),
    16: (23, 50.6),
    17: (51, 49.1),
    18: (52, 90.8),
    19: (8, 9),
    20: (91, 90.7),
}
