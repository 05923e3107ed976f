"""From splits to batches: one long text in contiguous streams, or pieces side by side, cut into
windows of time."""

from collections.abc import Sequence

import numpy as np

from rnnx.errors import UserError

Batch = dict[str, np.ndarray]


class Batches(Sequence):
    """The batches of an epoch, or of a score: `batches[i]` is a dict of arrays, rows first.

    The keys are always the same within a task. Every array holds batch_size rows, of which a
    process sees its own, `rows`; what pads a batch has weight 0.

    Attributes:
      batch_size: rows of the global batch, of all processes together.
      targets: how many targets all batches hold, padding left out.
    """

    batch_size: int
    targets: int

    def begin(self, epoch: int) -> None:
        """Fixes the order of an epoch, a function of seed and epoch alone."""

    def alike(self, first: int, limit: int) -> int:
        """How many batches from `first` on, at most limit, have the same shapes."""
        return min(limit, len(self) - first)

    def together(self, first: int, count: int, width: int) -> Batch:
        """Batches of the same shapes from `first` on, stacked: (width, B, ...), zeros after
        count."""
        parts = [self[i] for i in range(first, first + count)]
        stacked = {}
        for name, a in parts[0].items():
            stacked[name] = whole = np.zeros((width, *a.shape), a.dtype)
            for k, part in enumerate(parts):
                whole[k] = part[name]
        return stacked


def streams(tokens: np.ndarray, batch_size: int) -> np.ndarray:
    """The text as B contiguous streams, a view (B, N // B); the last N % B tokens are dropped.

    As in the authors' readers (the `ptb_iterator` of the TensorFlow tutorial): row b resumes
    where it stopped, window after window, so that its state can be carried.
    """
    if batch_size < 1:
        raise UserError(f"a batch of {batch_size}: batch_size must be at least 1")
    length = len(tokens) // batch_size
    return np.asarray(tokens)[: batch_size * length].reshape(batch_size, length)


class Windows(Batches):
    """Windows of a text to train on, in order.

        inputs, targets   (B, T) int32, targets the next tokens
        weight            (B, T) float32, ones
        fresh             (B,) float32, 1 where a row starts from the zero state

    There are (N // B - 1) // T windows, 1,327 for PTB words at 20 x 35; the tail that fills no
    window is dropped, as by the authors.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        batch_size: int,
        num_steps: int,
        rows: slice = slice(None),
        *,
        reset_prob: float = 0.0,
        seed: int = 0,
    ):
        """Cuts the text.

        Args:
          tokens: (N,) ids.
          batch_size: B, of all processes together.
          num_steps: T, the length of a window.
          rows: the streams that this process takes.
          reset_prob: how likely a row starts a window from the zero state.
          seed: of those draws.

        Raises:
          UserError: when there is no window at all.
        """
        whole = streams(tokens, batch_size)
        if num_steps < 1:
            raise UserError(f"windows of {num_steps} steps: num_steps must be at least 1")
        if whole.shape[1] <= num_steps:
            raise UserError(
                f"batch larger than the text: {batch_size} streams of {num_steps} + 1 symbols need "
                f"{batch_size * (num_steps + 1):,}, and it has {len(tokens):,}: make batch_size or "
                "num_steps smaller"
            )
        self._streams, self._steps, self.batch_size = whole[rows], num_steps, batch_size
        self._rows, self._reset_prob, self._seed, self._epoch = rows, reset_prob, seed, 0
        self.targets = len(self) * batch_size * num_steps

    def __len__(self) -> int:
        return (self._streams.shape[1] - 1) // self._steps

    def begin(self, epoch: int) -> None:
        """A text is read in its order in every epoch; the epoch decides where rows restart."""
        self._epoch = epoch

    def __getitem__(self, i: int) -> Batch:
        i = range(len(self))[i]
        both = self._streams[:, i * self._steps :][:, : self._steps + 1].astype(np.int32)
        fresh = np.full(self.batch_size, i == 0)
        if self._reset_prob:
            draws = np.random.default_rng((self._seed, self._epoch, i)).random(self.batch_size)
            fresh |= draws < self._reset_prob
        return {
            "inputs": both[:, :-1],
            "targets": both[:, 1:],
            "weight": np.ones(both[:, 1:].shape, np.float32),
            "fresh": fresh[self._rows].astype(np.float32),
        }


class ScoringWindows(Batches):
    """Windows of a text that score each target exactly once, with the keys of `Windows`.

    A text of N symbols has N - 1 targets, read in B contiguous streams: with batch_size 1, the
    `full` protocol, one stream from the first token on. Weight is 1 for a target and 0 for
    padding, which only ends a stream, so that a carried state never sees it before a target.
    """

    def __init__(
        self, tokens: np.ndarray, batch_size: int, num_steps: int, rows: slice = slice(None)
    ):
        """Cuts the text. Raises UserError if there is no target."""
        if batch_size < 1 or num_steps < 1:
            raise UserError("batch_size and num_steps must be at least 1")
        if len(tokens) < 2:
            raise UserError(f"a text of {len(tokens)} symbols has no next symbol to score")
        self._tokens, self._steps, self._rows = np.asarray(tokens), num_steps, rows
        # Stream b reads inputs at begin[b] .. begin[b + 1]: equally long, or one longer.
        self._begin = np.arange(batch_size + 1) * (len(tokens) - 1) // batch_size
        self.batch_size, self.targets = batch_size, len(tokens) - 1

    def __len__(self) -> int:
        return -(-int(np.diff(self._begin).max()) // self._steps)

    def __getitem__(self, i: int) -> Batch:
        start = range(len(self))[i] * self._steps
        begin, end = self._begin[:-1][self._rows, None], self._begin[1:][self._rows, None]
        at = begin + np.arange(start, start + self._steps)  # (B, T)
        weight = at < end
        at = np.where(weight, at, 0)
        return {
            "inputs": self._tokens[at].astype(np.int32),
            "targets": self._tokens[at + 1].astype(np.int32),
            "weight": weight.astype(np.float32),
            "fresh": np.full(len(at), i == 0, np.float32),
        }


class Pieces:
    """Sequences of vectors, one after the other: frames (N, K), and where each piece ends."""

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


class PieceWindows(Batches):
    """Windows of pieces, to train on and to score.

        inputs, targets   (B, T, K) float32, targets the next steps
        weight            (B, T) float32, 0 where a piece has ended
        fresh             (B,) float32, 1 where a window begins a piece

    B pieces lie side by side, padded to the windows that the longest of all pieces needs, so that
    every epoch has as many, whatever its order.
    """

    def __init__(
        self,
        pieces: Pieces,
        batch_size: int,
        num_steps: int,
        rows: slice = slice(None),
        seed: int = 0,
    ):
        """Cuts the pieces; seed is of their order, which `begin` draws for an epoch."""
        if batch_size < 1 or num_steps < 1:
            raise UserError("batch_size and num_steps must be at least 1")
        self._pieces, self.batch_size, self._steps = pieces.pieces, batch_size, num_steps
        self._rows, self._seed, self.targets = rows, seed, pieces.targets
        self._per_batch = -(-(max(map(len, self._pieces)) - 1) // num_steps)
        self._order = np.arange(len(self._pieces))

    def __len__(self) -> int:
        return -(-len(self._pieces) // self.batch_size) * self._per_batch

    def begin(self, epoch: int) -> None:
        """Shuffles the pieces."""
        self._order = np.random.default_rng((self._seed, epoch)).permutation(len(self._pieces))

    def __getitem__(self, i: int) -> Batch:
        batch, part = divmod(range(len(self))[i], self._per_batch)
        start, keys = part * self._steps, self._pieces[0].shape[1]
        both = np.zeros((self.batch_size, self._steps + 1, keys), np.float32)
        weight = np.zeros((self.batch_size, self._steps), np.float32)
        for row, k in enumerate(self._order[batch * self.batch_size :][: self.batch_size]):
            frames = self._pieces[k][start : start + self._steps + 1]
            both[row, : len(frames)] = frames
            weight[row, : max(len(frames) - 1, 0)] = 1.0
        both, weight = both[self._rows], weight[self._rows]
        return {
            "inputs": both[:, :-1],
            "targets": both[:, 1:],
            "weight": weight,
            "fresh": np.full(len(both), part == 0, np.float32),
        }


def capped(split: np.ndarray | Pieces, targets: int) -> np.ndarray | Pieces:
    """The first so many targets of a split, all of it for 0; of pieces, whole ones."""
    if not targets:
        return split
    if isinstance(split, Pieces):
        count = int(np.searchsorted(split.ends - np.arange(1, len(split.ends) + 1), targets)) + 1
        return Pieces.of(split.pieces[:count])
    return split[: targets + 1]
