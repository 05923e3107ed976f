"""What is said: a network reads frames of sound and emits letters or phones, trained by CTC."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from rnnx import heads
from rnnx.config import cell_of
from rnnx.data import speech
from rnnx.data.batches import Batches
from rnnx.data.sequences import Sequences
from rnnx.dropout import Masks
from rnnx.model import VectorModel
from rnnx.tasks import augment, decoding, transcripts
from rnnx.tasks.forecast import PARTS
from rnnx.tasks.labelled import batches_of
from rnnx.tasks.network import stack_options
from rnnx.tasks.task import BLOCKS, Dataset, Function, Sums, Task, Unit


class Speech(Task):
    """p(symbol or blank at t) = softmax(y_t S + b), y the stack's outputs; costs by `heads.ctc`.

    Scores: cer, errors of the most probable path's symbols (insertions, deletions, substitutions)
    a symbol said; nll, nats a symbol. With labels=phone the first is a phone error rate. Errors of
    the test part are summed by speaker too.
    """

    primary = "cer"
    counted = "symbols"
    protocols = {"beam": transcripts.score}  # noqa: RUF012

    def load(self, config: ConfigDict, say: Callable[[str], None]) -> Dataset:
        utterances = speech.read(config, say)
        spelled = speech.labels_of(utterances, config.labels)
        train = utterances.part == 0
        symbols = sorted({s for own, is_train in zip(spelled, train, strict=True) if is_train
                          for s in own})  # fmt: skip
        frames = [speech.steps_of(f, config.frame_stack) for f in utterances.frames]
        frames, scaling = speech.scaled(frames, utterances.speakers, config.scale_by, train)
        steps = np.array([len(f) for f in frames])
        counts = np.array([len(own) for own in spelled])
        spec = {
            "symbols": symbols,
            "labels": config.labels,
            "scaling": scaling,
            "scale_by": config.scale_by,
            "frame_stack": config.frame_stack,
            "sample_rate": utterances.sample_rate,
            "steps_a_symbol": float(steps[train].sum() / max(counts[train].sum(), 1)),
        }
        splits, notes = {}, []
        for name, part in PARTS.items():
            chosen = np.flatnonzero(utterances.part == part)
            speakers = [utterances.speakers[i] for i in chosen] if name == "test" else None
            splits[name] = self.sequences(spec, [frames[i] for i in chosen],
                                          [spelled[i] for i in chosen], speakers)  # fmt: skip
        lost = [utterances.ids[i] for i in np.flatnonzero(steps < _least_steps(spelled))]
        if lost:
            notes = [f"warning: {len(lost)} utterances are too short for what is said in them and "
                     f"are not learned from, such as {lost[0]}"]  # fmt: skip
        about = (
            f"{steps.sum() * config.frame_stack / utterances.rate / 3600:.2f} hours, "
            f"{len(set(utterances.speakers))} speakers, {len(symbols)} symbols; sizes in "
            "utterances",
            *notes,
        )
        sizes = tuple(len(split) for split in splits.values())
        return Dataset(config.corpus, splits, spec, utterances.sums, sizes, about)

    def sequences(
        self,
        spec: dict,
        frames: list[np.ndarray],
        spelled: list[tuple[str, ...]],
        speakers: list[str] | None = None,
    ) -> Sequences:
        """Utterances with their labels, and which speaker's block each belongs to; a symbol that
        training does not have is -1, which no network emits."""
        number = {symbol: i for i, symbol in enumerate(spec["symbols"], start=speech.BLANK + 1)}
        lengths = np.array([len(own) for own in spelled], np.int32)
        labels = np.zeros((len(spelled), max(lengths.max(), 1)), np.int32)
        for row, own in zip(labels, spelled, strict=True):
            row[: len(own)] = [number.get(symbol, -1) for symbol in own]
        index = np.arange(len(spelled), dtype=np.int32)
        whole = {"labels": labels, "label_lengths": lengths, "index": index}
        if speakers:
            who = np.array(speakers)
            whole[BLOCKS] = (who[:, None] == np.unique(who)).astype(np.uint8)
        return Sequences({"inputs": frames}, whole)

    def model(self, config: ConfigDict, spec: dict, rngs: nnx.Rngs) -> VectorModel:
        return VectorModel(
            cell_of(config),
            len(spec["scaling"]["mean"]),
            config.hidden_size,
            1 + len(spec["symbols"]),
            bidirectional=config.bidirectional,
            rngs=rngs,
            **stack_options(config),
        )

    def batches(
        self, config: ConfigDict, dataset: Dataset, split: str, protocol: str, rows: slice
    ) -> Batches:
        return batches_of(config, dataset.splits[split], protocol, rows)

    def masks(
        self, config: ConfigDict, net: VectorModel, key: Array, rows: Array, batch: dict[str, Array]
    ) -> Masks:
        """Dropout, and in the first layer's input the bands and steps that are hidden."""
        masks = super().masks(config, net, key, rows, batch)
        most = config.mask_bands, config.mask_steps
        if not any(most):
            return masks
        steps, width = batch["inputs"].shape[1:]
        bands = width // (speech.KINDS * config.frame_stack)
        seen = augment.hidden(key, rows, batch["lengths"], (steps, width), bands=bands, most=most)
        first, *others = masks.i or (1.0,) + (None,) * (config.num_layers - 1)
        return masks._replace(i=(jnp.swapaxes(seen, 0, 1) * first, *others))

    def cost(
        self, net: VectorModel, batch: dict[str, Array], carries: Any, masks: Masks | None
    ) -> tuple[Array, Any, Sums]:
        logits = decoding.logits(net, batch, masks)
        lengths, labels, count = batch["lengths"], batch["labels"], batch["label_lengths"]
        known = jnp.all((labels >= 0) | (jnp.arange(labels.shape[1]) >= count[:, None]), axis=1)
        learned = (batch["weight"] > 0) & known & heads.ctc_feasible(lengths, labels, count)
        nats = jnp.where(learned, heads.ctc(logits, lengths, jnp.maximum(labels, 0), count), 0.0)
        wrong = batch["weight"] * decoding.errors(*decoding.greedy(logits, lengths), labels, count)
        symbols = batch["weight"] * count
        sums = {
            "cer": (jnp.sum(wrong).astype(jnp.float32), jnp.sum(symbols)),
            "nll": (jnp.sum(nats), jnp.sum(jnp.where(learned, symbols, 0.0))),
        }
        if BLOCKS in batch:
            of = batch[BLOCKS].astype(jnp.float32)  # (B, G)
            sums[BLOCKS] = wrong @ of, symbols @ of
        return nats, carries, sums

    def predict(self, net: VectorModel, batch: dict[str, Array], carries: Any) -> tuple[dict, Any]:
        """Log posteriors (B, T, V), anything from a row's length on."""
        log_p = jax.nn.log_softmax(decoding.logits(net, batch, None), axis=-1)
        return {"log_p": jnp.swapaxes(log_p, 0, 1)}, carries

    def function(self, config: ConfigDict, spec: dict) -> Function:
        def call(net: VectorModel, inputs: dict[str, Array], carries: Any) -> tuple[Array, Any]:
            return self.predict(net, inputs, carries)[0]["log_p"], carries

        def score(log_p: Array, batch: dict[str, Array]) -> tuple[Any, Any]:
            path = decoding.greedy(jnp.swapaxes(log_p, 0, 1), batch["lengths"])
            wrong = decoding.errors(*path, batch["labels"], batch["label_lengths"])
            return jnp.sum(batch["weight"] * wrong), jnp.sum(
                batch["weight"] * batch["label_lengths"]
            )

        width = len(spec["scaling"]["mean"])
        inputs = {
            "inputs": (("batch", "time", width), "float32"),
            "lengths": (("batch",), "int32"),
        }
        return Function(inputs, "log probabilities of each symbol, the blank first", call, score)

    def unit(self, config: ConfigDict) -> Unit:
        what, label = ("phone", "PER") if config["labels"] == "phone" else ("character", "CER")
        return Unit(f"{what} error rate, %", label, 2, of=_percent)

    def uninformed(self, spec: dict) -> float:
        """A wrong symbol at every step, as a fresh network may emit."""
        return max(1.0, spec["steps_a_symbol"])

    def baselines(self, config: ConfigDict, dataset: Dataset, split: str) -> dict[str, float]:
        return {"silence": 1.0}


def _percent(share: float) -> float:
    return 100 * share


def _least_steps(spelled: list[tuple[str, ...]]) -> np.ndarray:
    """How many steps each needs: one a symbol, one more between equal ones."""
    return np.array([len(s) + sum(a == b for a, b in itertools.pairwise(s)) for s in spelled])
