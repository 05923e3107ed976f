"""From splits to batches: one long text in contiguous streams, or pieces side by side, cut into
windows of time."""

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


class Pieces:
    """Sequences of vectors, one behind the other: frames (N, K), and where each piece ends."""

    def __init__(self, frames: np.ndarray, ends: Sequence[int]):
        self.frames, self.ends = frames, np.asarray(ends, int)

    @classmethod
    def of(cls, pieces: Sequence[np.ndarray]) -> "Pieces":
        """From one array (T, K) a piece."""
        return cls(np.concatenate(pieces), np.cumsum([len(piece) for piece in pieces]))

    def __len__(self) -> int:
        """Steps of all pieces together."""
        return len(self.frames)

    @property
    def pieces(self) -> list[np.ndarray]:
        """One array (T, K) a piece."""
        return np.split(self.frames, self.ends[:-1])

    @property
    def targets(self) -> int:
        """Steps that have a predecessor."""
        return len(self.frames) - len(self.ends)


class PieceWindows(Sequence):
    """Windows of pieces: `windows[i]` is x, y, both (B, T, K) float32, and weight (B, T), 0 where
    a piece has ended.

    B pieces lie side by side, padded to the windows that the longest of all pieces needs, so that
    every epoch has as many, whatever its order. The state is zero where a piece begins: at
    `fresh(i)`.

    Args:
      seed: of the order of the pieces, which `begin` draws for an epoch; before it, as they are.
    """

    def __init__(
        self,
        pieces: Pieces,
        batch_size: int,
        num_steps: int,
        rows: slice = slice(None),
        seed: int = 0,
    ):
        if batch_size < 1 or num_steps < 1:
            raise UserError("batch_size and num_steps must be at least 1")
        self._pieces, self._batch, self._steps = pieces.pieces, batch_size, num_steps
        self._rows, self._seed, self.targets = rows, seed, pieces.targets
        self._per_batch = -(-(max(map(len, self._pieces)) - 1) // num_steps)
        self._order = np.arange(len(self._pieces))

    def __len__(self) -> int:
        return -(-len(self._pieces) // self._batch) * self._per_batch

    def begin(self, epoch: int) -> None:
        """Shuffles the pieces: a function of seed and epoch alone."""
        self._order = np.random.default_rng((self._seed, epoch)).permutation(len(self._pieces))

    def fresh(self, i: int) -> bool:
        """Whether window i begins new pieces."""
        return i % self._per_batch == 0

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        batch, part = divmod(range(len(self))[i], self._per_batch)
        start, keys = part * self._steps, self._pieces[0].shape[1]
        both = np.zeros((self._batch, self._steps + 1, keys), np.float32)
        weight = np.zeros((self._batch, self._steps), np.float32)
        for row, k in enumerate(self._order[batch * self._batch :][: self._batch]):
            frames = self._pieces[k][start : start + self._steps + 1]
            both[row, : len(frames)] = frames
            weight[row, : max(len(frames) - 1, 0)] = 1.0
        both, weight = both[self._rows], weight[self._rows]
        return both[:, :-1], both[:, 1:], weight

    def together(self, first: int, count: int, width: int) -> tuple[np.ndarray, ...]:
        """The windows from `first` on side by side: x, y (B, width T, K), weight (B, width T), and
        1.0 in fresh (width,) for those that begin pieces; zeros after count."""
        windows = zip(*(self[i] for i in range(first, first + count)), strict=True)
        missing = (width - count) * self._steps
        x, y, weight = (_padded(np.concatenate(part, axis=1), missing) for part in windows)
        fresh = [self.fresh(i) for i in range(first, first + count)]
        return x, y, weight, np.pad(np.float32(fresh), (0, width - count))


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

    def begin(self, epoch: int) -> None:
        """A text is read in its order in every epoch."""

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        start = range(len(self))[i] * self._steps  # also minds negative i, and the end
        return self._read(start, self._steps)

    def together(self, first: int, count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The windows from `first` on side by side: x, y, both (B, width T), zeros after count."""
        x, y = self._read(first * self._steps, count * self._steps)
        missing = (width - count) * self._steps
        return _padded(x, missing), _padded(y, missing)

    def _read(self, start: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        both = self._streams[:, start : start + steps + 1].astype(np.int32)
        return both[:, :-1], both[:, 1:]


def _padded(a: np.ndarray, missing: int) -> np.ndarray:
    """Zeros behind the time axis of (B, T) or (B, T, K)."""
    return np.pad(a, ((0, 0), (0, missing), *[(0, 0)] * (a.ndim - 2)))


class _ScoringWindows(Sequence):
    def __init__(self, tokens: np.ndarray, batch_size: int, num_steps: int):
        if batch_size < 1 or num_steps < 1:
            raise UserError("batch_size and num_steps must be at least 1")
        if len(tokens) < 2:
            raise UserError(f"a text of {len(tokens)} symbols has no next symbol to score")
        self._tokens, self._steps = np.asarray(tokens), num_steps
        # Stream b reads x at begin[b] .. begin[b + 1]: equally long, or one longer.
        self._begin = np.arange(batch_size + 1) * (len(tokens) - 1) // batch_size
        self.targets = len(tokens) - 1

    def fresh(self, i: int) -> bool:
        """The zero state is before the first window alone."""
        return i == 0

    def __len__(self) -> int:
        return -(-int(np.diff(self._begin).max()) // self._steps)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = range(len(self))[i] * self._steps
        at = self._begin[:-1, None] + np.arange(start, start + self._steps)  # (B, T)
        weight = at < self._begin[1:, None]
        at = np.where(weight, at, 0)
        x, y = self._tokens[at], self._tokens[at + 1]
        return x.astype(np.int32), y.astype(np.int32), weight.astype(np.float32)


def training_windows(
    split: np.ndarray | Pieces, batch_size: int, num_steps: int, rows: slice, seed: int
) -> Windows | PieceWindows:
    """Windows to train on: of a text, or of pieces."""
    if isinstance(split, Pieces):
        return PieceWindows(split, batch_size, num_steps, rows, seed)
    return Windows(split, batch_size, num_steps, rows)


def scoring_windows(
    split: np.ndarray | Pieces, batch_size: int, num_steps: int
) -> _ScoringWindows | PieceWindows:
    """Windows that score each target exactly once.

    A sequence of x, y, weight, each (B, T): weight (float32) is 1 for a target and 0 for padding,
    which only ends a stream, so that a carried state never sees it before a target. All shapes
    are equal; where `fresh(i)`, window i follows the zero state. `targets` counts them.

    A text of N symbols has N - 1 targets, read in B contiguous streams: with batch_size 1, the
    `full` protocol, one stream from the first token on. A piece of N steps has N - 1 too, read
    from the zero state, as many pieces side by side. Raises UserError if there is no target.
    """
    if isinstance(split, Pieces):
        return PieceWindows(split, batch_size, num_steps)
    return _ScoringWindows(split, batch_size, num_steps)


def capped(split: np.ndarray | Pieces, targets: int) -> np.ndarray | Pieces:
    """The first so many targets of a split, all of it for 0; of pieces, whole ones."""
    if not targets:
        return split
    if isinstance(split, Pieces):
        count = int(np.searchsorted(split.ends - np.arange(1, len(split.ends) + 1), targets)) + 1
        return Pieces.of(split.pieces[:count])
    return split[: targets + 1]
