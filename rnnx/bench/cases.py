"""The networks that are measured, their work, and the least time this machine needs for it."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rnnx import config as configs
from rnnx.data.vocabulary import Vocabulary
from rnnx.tasks import network

FLOAT = 4  # bytes
CACHE = 32 << 20  # weights below it are read from memory once a window, not once a time step


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and a batch. Nothing is dropped, so that all rivals compute the same loss.

    Attributes:
      label: for tables.
      fields: config fields that differ from the default.
      kind: `train` (updates); at batch 1 `token` (one in, the next one's logits out), `step` (the
        same, exported, each call timed: `latency.py`), `write` (one at a time, each fed back),
        `text` (the full protocol), `splits` (of two texts as two rows) or `hear` (an utterance to
        log probabilities).
    """

    name: str
    label: str
    vocab_size: int
    fields: tuple[tuple[str, object], ...]
    kind: str = "train"

    @property
    def speech(self) -> bool:
        """Whether it is of the task `speech`."""
        return dict(self.fields).get("task") == "speech"

    @property
    def spec(self) -> Any:
        """As many words, named by their ids; or as many symbols, of 39 features a frame."""
        names = tuple(map(str, range(self.vocab_size)))
        if self.speech:
            width = 39 * dict(self.fields)["frame_stack"]
            return {"symbols": names[1:], "scaling": {"mean": [0.0] * width}}
        return Vocabulary("word", names)

    @property
    def config(self) -> ConfigDict:
        """The resolved configuration."""
        config = configs.default("speech" if self.speech else "")
        config.update(dict(self.fields))
        return network.resolve(config, self.spec)

    @property
    def tokens(self) -> int:
        """Time steps of a unit of work: a window of the whole batch, a token, a piece of text, an
        utterance."""
        config = self.config
        if self.kind == "train":
            return config.batch_size * (SPEECH_STEPS if self.speech else config.num_steps)
        if self.kind == "hear":
            return SPEECH_STEPS
        return 1 if self.kind in ("token", "step") else self.rows * TEXT_STEPS

    @property
    def rows(self) -> int:
        """How many streams are read side by side."""
        return self.config.batch_size if self.kind == "train" else 1 + (self.kind == "splits")

    @property
    def sound(self) -> float:
        """Seconds of sound in a unit of work, of 100 frames each; 0 where there is none."""
        return self.tokens * self.config.frame_stack / 100 if self.speech else 0.0


TEXT_STEPS = 256  # of writing and of the full protocol, at batch 1
SPEECH_STEPS, SYMBOLS = 100, 20  # of an utterance: three seconds where a step has three frames


def _case(name: str, label: str, vocab_size: int, kind: str = "train", **fields: object) -> Case:
    return Case(name, label, vocab_size, tuple(fields.items()), kind)


_WORDS = dict(
    level="word", cell="rhn", depth=10, hidden_size=830, tied=True, batch_size=20, num_steps=35,
    weight_decay=1e-7,
)  # fmt: skip
_GATED = dict(hidden_size=1000, batch_size=32, num_steps=100, one_hot=True, forget_bias=0.0)
_MIRNN = dict(
    cell="rnn", integration="mi", hidden_size=2048, batch_size=50, num_steps=50, one_hot=True
)
_SMALL = dict(cell="rhn", depth=5, hidden_size=256, batch_size=128, num_steps=64, one_hot=True)
_SPEECH = dict(
    task="speech", cell="lstm", hidden_size=128, num_layers=2, bidirectional=True, frame_stack=3,
    batch_size=16,
)  # fmt: skip

CASES = (
    _case("rhn", "(a) RHN L=10, n=830, V=10,000", 10_000, **_WORDS),
    _case("lstm", "(b) LSTM n=1000", 50, cell="lstm", **_GATED),
    _case("milstm", "(b) MI-LSTM n=1000", 50, cell="lstm", integration="mi", **_GATED),
    _case("gru", "(c) GRU n=1000", 50, cell="gru", reset_after=True, **_GATED),
    _case(
        "migru", "(c) MI-GRU n=1000", 50, cell="gru", reset_after=True, integration="mi", **_GATED
    ),
    _case("mirnn", "(d) MI-RNN n=2048", 50, **_MIRNN),
    _case("small", "(e) RHN L=5, n=256, V=50", 50, **_SMALL),
    _case("token", "(f) a token, RHN L=5, n=256", 50, "token", **_SMALL),
    _case("token_rhn", "(f) a token, RHN L=10, n=830", 10_000, "token", **_WORDS),
    _case("step", "(g) a step, RHN L=5, n=256", 50, "step", **_SMALL),
    _case("step_lstm", "(g) a step, LSTM n=256", 50, "step", **_SMALL | dict(cell="lstm", depth=1)),
    _case("write", "(f) writing, RHN L=5, n=256", 50, "write", **_SMALL),
    _case("text", "(f) full protocol, RHN L=10, n=830", 10_000, "text", **_WORDS),
    _case("splits", "(f) two texts, RHN L=10, n=830", 10_000, "splits", **_WORDS),
    _case("splits_rnn", "(f) two texts, MI-RNN n=2048", 50, "splits", **_MIRNN),
    _case("speech", "(h) CTC, LSTM 2 x 128 both ways", 33, **_SPEECH),
    _case("hear", "(h) an utterance, LSTM 2 x 128 both ways", 33, "hear", **_SPEECH),
)  # fmt: skip

# Seconds instead of minutes; sizes at which nothing can be concluded.
QUICK = (
    _case("rhn", "(a) RHN L=3, n=64", 100, **_WORDS | dict(depth=3, hidden_size=64)),
    _case("milstm", "(b) MI-LSTM n=64", 50, cell="lstm", integration="mi",
          **_GATED | dict(hidden_size=64, num_steps=20)),
    _case("token", "(f) a token, RHN L=3, n=64", 50, "token",
          **_SMALL | dict(depth=3, hidden_size=64)),
    _case("step", "(g) a step, RHN L=3, n=64", 50, "step",
          **_SMALL | dict(depth=3, hidden_size=64)),
    _case("write", "(f) writing, RHN L=3, n=64", 50, "write",
          **_SMALL | dict(depth=3, hidden_size=64)),
    _case("text", "(f) full protocol, RHN L=3, n=64", 50, "text",
          **_SMALL | dict(depth=3, hidden_size=64)),
    _case("speech", "(h) CTC, LSTM 2 x 24 both ways", 33, **_SPEECH | dict(hidden_size=24)),
    _case("hear", "(h) an utterance, LSTM 2 x 24 both ways", 33, "hear",
          **_SPEECH | dict(hidden_size=24)),
)  # fmt: skip

LONG = _case(
    "long", "RHN L=10, n=830, T=2,000, recomputed", 10_000,
    **_WORDS | dict(num_steps=2000, remat=50),
)  # fmt: skip


class Phase(NamedTuple):
    """A part of the work; arithmetic and memory traffic overlap within it, phases do not."""

    name: str
    flops: float  # of matrix products, two a multiply-add
    bytes: float  # of weights through memory


def phases(case: Case) -> Iterator[Phase]:
    """The work of a unit, phase by phase. Pointwise work and activations are not counted."""
    config = case.config
    train = case.kind == "train"
    rows = case.rows
    steps = case.tokens // rows
    shapes = network.abstract(config, case.spec)[1]
    sizes = {name: p.size for name, p in shapes.items()}

    def weights(ends: str, among: str = "") -> int:
        return sum(n for name, n in sizes.items() if name.endswith(ends) and among in name)

    recurrent, inputs = weights(".U"), weights(".W")
    # Inputs that are given need no gradient.
    given = weights(".W", ".0.blocks.") if config.one_hot or case.speech else 0
    again = steps if FLOAT * recurrent > CACHE else 1
    softmax = weights("embedding" if config.tied else "_weights")

    def product(name: str, weights: int, passes: int = 1, times: int = 1) -> Phase:
        """A product with `weights` for every token, the weights read `times` times a pass."""
        flops = 2.0 * weights * rows * steps * passes
        return Phase(name, flops, float(FLOAT * weights * times * passes))

    yield product("recurrence forward", recurrent, times=again)
    if train:
        yield product("recurrence backward", recurrent, times=again)
        yield product("recurrent weight gradients", recurrent)
    yield product("products of given inputs", given, passes=2 if train else 1)
    yield product("input products", inputs - given, passes=3 if train else 1)
    yield product("softmax", softmax, passes=3 if train else 1)
    if train:
        yield Phase("update", 0.0, 3.0 * FLOAT * sum(sizes.values()))  # read both, write one


def bound(case: Case, flops_per_second: float, bytes_per_second: float) -> float:
    """Seconds a unit of work takes at least: the larger of both demands, summed over phases."""
    return sum(max(p.flops / flops_per_second, p.bytes / bytes_per_second) for p in phases(case))


def flops(case: Case) -> float:
    """Operations in matrix products of a unit of work."""
    return sum(p.flops for p in phases(case))
