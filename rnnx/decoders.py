"""Decoders of speech as the command line names them: beam width, character model, word list."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from rnnx import model
from rnnx.errors import UserError
from rnnx.sample import start_of_text
from rnnx.tasks import beam, transcripts
from rnnx.tasks.language import Language
from rnnx.trained import Run, open_run

NAMES = ("width", "lm", "lm_weight", "bonus", "words")


def define_flags() -> None:
    """The flags of `NAMES`."""
    flags.DEFINE_integer("width", 0, "beam: prefixes kept; 0: the likeliest path", lower_bound=0)
    flags.DEFINE_string("lm", "", "beam: workdir of a language model of characters")
    flags.DEFINE_float("lm_weight", 0.5, "beam: of the model's log probabilities", lower_bound=0)
    flags.DEFINE_float("bonus", 0.0, "beam: added for each symbol")
    flags.DEFINE_string("words", "", "beam: a file of the words that may occur, one a line")


def decoder_of(settings: dict[str, Any], spec: dict) -> transcripts.Decoder:
    """The decoder of values of `NAMES`, for a network with this spec.

    Raises:
      UserError: a model that is none of characters, a list that can't be read or has no word that
        the network can spell, either without a beam, or for phones.
    """
    named = settings["lm"] or settings["words"]
    if named and not settings["width"]:
        raise UserError("a language model or a list of words needs a beam: --width=8")
    if named and spec["labels"] != "char":
        raise UserError("a language model and a list of words are for networks that emit letters")
    lm = lexicon = None
    if settings["lm"]:
        lm = CharacterModel(open_run(Path(settings["lm"]).expanduser()), spec["symbols"])
    if settings["words"]:
        try:
            text = Path(settings["words"]).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the list of words {settings['words']}: {error}") from None
        lexicon = beam.Lexicon(text.splitlines(), spec["symbols"])
        if not any(set(word).issubset(spec["symbols"]) for word in lexicon.words):
            letters = "".join(spec["symbols"]).replace(" ", "")
            raise UserError(
                f"no word of {settings['words']} can be spelled with the network's {letters[:60]!r}"
            )
    return transcripts.decoder(
        settings["width"], lm, settings["lm_weight"], settings["bonus"], lexicon
    )


class CharacterModel:
    """A trained language model of characters, asked for the next one after each prefix.

    A symbol that the model does not know, in this or the other case, is as likely as its least
    likely one.
    """

    def __init__(self, run: Run, symbols: list[str]):
        """Raises UserError when run is no language model of characters."""
        if not isinstance(run.task, Language) or run.spec.level != "char":
            raise UserError(f"{run.folder} holds no language model of characters")
        known = {symbol: i for i, symbol in enumerate(run.spec.symbols)}
        forms = [(s, s.lower(), s.upper()) for s in symbols]
        self._ids = [next((known[f] for f in form if f in known), -1) for form in forms]
        self._step = jax.jit(partial(_step, run.graphdef))
        self._run, self._states = run, {}
        net = run.net
        begin = jnp.asarray(start_of_text(run.spec)[:1])
        row, carries = self._step(run.params, begin, net.stack.zero_carry(1))
        self._states[()] = (np.asarray(row)[0], jax.tree.map(lambda c: np.asarray(c)[0], carries))

    def next(self, prefixes: list[beam.Prefix]) -> np.ndarray:
        """Log probabilities (P, 1 + symbols)."""
        new = [p for p in prefixes if p not in self._states]
        if new:
            # Rows are filled up to a power of two: few shapes to compile.
            count = 1 << (len(new) - 1).bit_length()
            rows = [self._states[p[:-1]][1] for p in new]
            carries = jax.tree.map(lambda *c: _padded(np.stack(c), count), *rows)
            last = _padded(np.array([max(self._ids[p[-1] - 1], 0) for p in new]), count)
            log_p, carries = self._step(self._run.params, last, carries)
            log_p, carries = np.asarray(log_p), jax.tree.map(np.asarray, carries)
            for i, prefix in enumerate(new):
                self._states[prefix] = log_p[i], jax.tree.map(lambda c, i=i: c[i], carries)
        found = np.stack([self._states[p][0] for p in prefixes])
        of = [found[:, i] if i >= 0 else found.min(axis=1) for i in self._ids]
        if any(p == () for p in prefixes):  # a new utterance: forget the one before
            self._states = {p: s for p, s in self._states.items() if len(p) <= 1}
        return np.stack([np.full(len(found), -np.inf), *of], axis=1)


def _step(graphdef: Any, params: dict, tokens: Any, carries: Any) -> tuple[Any, Any]:
    """Log probabilities (B, V) after one more token of each row (B,), and the states."""
    logits, carries = model.merge(graphdef, params)(tokens[None], carries)
    return jax.nn.log_softmax(logits[0], axis=-1), carries


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([rows, np.repeat(rows[:1], count - len(rows), axis=0)])
