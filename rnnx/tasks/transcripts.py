"""Transcriptions of a split, and their errors in characters and words: the protocol `beam`."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rnnx import model
from rnnx.data.sequences import SequenceBatches
from rnnx.errors import UserError
from rnnx.tasks import beam, decoding
from rnnx.tasks.task import Dataset, Sums

# log posteriors (T, V) -> symbols
Decoder = Callable[[np.ndarray], list[int]]


def decoder(
    width: int = 0,
    model: beam.Model | None = None,
    weight: float = 1.0,
    bonus: float = 0.0,
    lexicon: beam.Lexicon | None = None,
) -> Decoder:
    """The symbols of the most probable path for width 0, else `beam.search`."""
    if not width:
        return lambda log_p: decoding.collapsed(log_p.argmax(axis=1))
    return lambda log_p: beam.search(log_p, width, model, weight, bonus, lexicon)


def score(
    graphdef: Any,
    params: dict[str, Any],
    config: ConfigDict,
    dataset: Dataset,
    split: str,
    display: Any,
    *,
    decode: Decoder,
) -> Sums:
    """Errors of what is decoded, in characters or phones and in words, over the split (jiwer)."""
    import jiwer  # of the extra `speech`

    symbols, whole = dataset.spec["symbols"], dataset.splits[split].first(config.eval_tokens)
    batches = SequenceBatches(whole, config.batch_size, shuffle=False)
    display.start(f"{split} beam", len(whole))
    said, heard = [], []
    for log_p, row, batch in posteriors(graphdef, params, batches):
        labels = batch["labels"][row, : batch["label_lengths"][row]]
        said.append(spelled(labels, symbols, config.labels))
        heard.append(spelled(decode(log_p), symbols, config.labels))
        display.update(len(said))
    # jiwer takes no empty references; what is heard in one is inserted.
    empty = [h for s, h in zip(said, heard, strict=True) if not s]
    pairs = [(s, h) for s, h in zip(said, heard, strict=True) if s]
    if not pairs:
        raise UserError(f"no recording of the {split} part that is scored has a text")
    parts = [list(part) for part in zip(*pairs, strict=True)]
    if config.labels == "phone":
        sums = {"cer": _sum(jiwer.process_words(*parts))}
    else:
        # As they are: by default jiwer takes spaces at the ends away.
        as_they_are = jiwer.ReduceToListOfListOfChars()
        sums = {
            "cer": _sum(jiwer.process_characters(*parts, as_they_are, as_they_are)),
            "wer": _sum(jiwer.process_words(*parts)),
        }
    words = sum(len(h.split()) for h in empty)
    more = {"cer": words if config.labels == "phone" else sum(map(len, empty)), "wer": words}
    return {name: (wrong + more[name], count) for name, (wrong, count) in sums.items()}


def posteriors(
    graphdef: Any, params: dict[str, Any], batches: SequenceBatches
) -> Iterator[tuple[np.ndarray, int, dict[str, np.ndarray]]]:
    """Log posteriors (T, V) of each utterance, its row, and the batch."""

    @jax.jit
    def log_posteriors(params: dict, batch: dict) -> Any:
        net = model.merge(graphdef, params)
        return jax.nn.log_softmax(decoding.logits(net, batch), axis=-1)

    for batch in batches:
        log_p = np.asarray(log_posteriors(params, batch), np.float64)
        for row in np.flatnonzero(batch["weight"] > 0):
            yield log_p[: batch["lengths"][row], row], int(row), batch


def spelled(labels: Any, symbols: list[str], kind: str) -> str:
    """Labels as text; a label that is no symbol of training is a replacement character."""
    parts = (symbols[label - 1] if label > 0 else "\ufffd" for label in labels)
    return (" " if kind == "phone" else "").join(parts)


def _sum(output: Any) -> tuple[float, float]:
    wrong = output.substitutions + output.deletions + output.insertions
    return float(wrong), float(output.hits + output.substitutions + output.deletions)
