"""From one long array of ids to batches: contiguous streams, cut into windows of time."""

from collections.abc import Sequence

import numpy as np

from rnnx.errors import UserError


def streams(tokens: np.ndarray, batch_size: int) -> np.ndarray:
    """The text as B contiguous streams, a view (B, N // B); the last N % B tokens are dropped.

    As in the authors' readers (the `ptb_iterator` of the TensorFlow tutorial): row b goes on
    where it stopped, window after window, so that its state can be carried.
    """
    if batch_size < 1:
        raise UserError(f"a batch of {batch_size}: batch_size must be at least 1")
    length = len(tokens) // batch_size
    return np.asarray(tokens)[: batch_size * length].reshape(batch_size, length)


class Windows(Sequence):
    """Training windows, in order: `windows[i]` is x, y, both (B, T) int32, y the next tokens.

    Args:
      tokens: (N,) ids.
      batch_size: B, of all processes together.
      num_steps: T, the length of a window.
      rows: the streams that this process takes.

    There are (N // B - 1) // T windows, 1,327 for PTB words at 20 x 35; the tail that fills no
    window is dropped, as by the authors. Raises UserError if there is no window at all.
    """

    def __init__(
        self, tokens: np.ndarray, batch_size: int, num_steps: int, rows: slice = slice(None)
    ):
        whole = streams(tokens, batch_size)
        if num_steps < 1:
            raise UserError(f"windows of {num_steps} steps: num_steps must be at least 1")
        if whole.shape[1] <= num_steps:
            raise UserError(
                f"batch larger than the text: {batch_size} streams of {num_steps} + 1 symbols need "
                f"{batch_size * (num_steps + 1):,}, and it has {len(tokens):,}: make batch_size or "
                "num_steps smaller"
            )
        self._streams, self._steps = whole[rows], num_steps

    def __len__(self) -> int:
        return (self._streams.shape[1] - 1) // self._steps

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        start = range(len(self))[i] * self._steps  # also minds negative i, and the end
        return self._read(start, self._steps)

    def together(self, first: int, count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The windows from `first` on side by side: x, y, both (B, width T), zeros after count."""
        x, y = self._read(first * self._steps, count * self._steps)
        padding = (0, 0), (0, (width - count) * self._steps)
        return np.pad(x, padding), np.pad(y, padding)

    def _read(self, start: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        both = self._streams[:, start : start + steps + 1].astype(np.int32)
        return both[:, :-1], both[:, 1:]


class _ScoringWindows(Sequence):
    def __init__(self, tokens: np.ndarray, batch_size: int, num_steps: int):
        if batch_size < 1 or num_steps < 1:
            raise UserError("batch_size and num_steps must be at least 1")
        if len(tokens) < 2:
            raise UserError(f"a text of {len(tokens)} symbols has no next symbol to score")
        self._tokens, self._steps = np.asarray(tokens), num_steps
        # Stream b reads x at begin[b] .. begin[b + 1]: equally long, or one longer.
        self._begin = np.arange(batch_size + 1) * (len(tokens) - 1) // batch_size

    def __len__(self) -> int:
        return -(-int(np.diff(self._begin).max()) // self._steps)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = range(len(self))[i] * self._steps
        at = self._begin[:-1, None] + np.arange(start, start + self._steps)  # (B, T)
        weight = at < self._begin[1:, None]
        at = np.where(weight, at, 0)
        x, y = self._tokens[at], self._tokens[at + 1]
        return x.astype(np.int32), y.astype(np.int32), weight.astype(np.float32)


def scoring_windows(tokens: np.ndarray, batch_size: int, num_steps: int) -> Sequence:
    """Windows that score each of the N - 1 targets exactly once, in B contiguous streams.

    A sequence of x, y, weight, each (B, T): weight (float32) is 1 for a target and 0 for padding,
    which only ends a stream, so that a carried state never sees it before a target. All shapes
    are equal. With batch_size 1 this is the `full` protocol: one stream from the first token on.
    Raises UserError if there is no target.
    """
    return _ScoringWindows(tokens, batch_size, num_steps)
