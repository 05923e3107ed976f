"""Questions about a passage: an attentive reader of bAbI's stories, novels and news."""

import collections
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from rnnx import dropout, heads
from rnnx.attention import AttentiveReader, ReaderMasks
from rnnx.config import cell_of
from rnnx.data import babi, cloze, cnn
from rnnx.data.batches import Batches
from rnnx.data.sequences import Sequences
from rnnx.data.stories import ENTITY, Question, Questions
from rnnx.data.vocabulary import UNK
from rnnx.dropout import Masks, Rates
from rnnx.errors import UserError
from rnnx.tasks import answers
from rnnx.tasks.forecast import PARTS
from rnnx.tasks.network import stack_options
from rnnx.tasks.task import Dataset, Function, Sums, Task, Unit, Unseen

_NEWS = ("cnn", "dailymail")


class Reading(Task):
    """p(answer) by an `AttentiveReader`, over the answers of training or the whole vocabulary.

    Scores: error, the share of questions answered wrongly; nll, nats a question, of those whose
    answer the network knows.

    Names of a passage, `@entityN`, are permuted among all of them: anew for each question and
    epoch in training, always alike in scoring. So nothing can be learned of a name.
    """

    primary = "error"
    counted = "questions"
    protocols = {"by_task": answers.by_kind}  # noqa: RUF012

    def check(self, config: ConfigDict) -> None:
        if config.tied or config.one_hot or config.drop_x or config.reset_prob:
            raise UserError(
                "a reader has word vectors, and no weights to tie: leave tied, one_hot, drop_x and "
                "reset_prob at their defaults (drop_i drops of word vectors)"
            )

    def load(self, config: ConfigDict, say: Callable[[str], None]) -> Dataset:
        found = read(config, say)
        spec = self.spec_of(found, config.answers)
        splits = {
            name: self.sequences(spec, [row for row in found.rows if row.part == part])
            for name, part in PARTS.items()
        }
        about = (
            f"{len(spec['vocabulary']):,} words, {len(spec['answers']):,} answers; sizes in "
            "questions",
            *found.about,
        )
        sizes = tuple(map(len, splits.values()))
        own, name = {}, config.corpus
        if _is_folder(name):
            place = Path(name).expanduser().resolve()
            own, name = {"corpus": str(place)}, place.name
        return Dataset(name, splits, spec, found.sums, sizes, about, own, tuple(own))

    def spec_of(self, found: Questions, kind: str) -> dict:
        """Words and answers of the training part, and how many names there are.

        Names come first in both, so that the number of a name as a word is that as an answer.
        """
        train = [row for row in found.rows if row.part == 0]
        texts = [text.split() for row in found.rows for text in (row.passage, row.question)]
        named = {word for text in texts for word in text if word.startswith(ENTITY)}
        named |= {row.answer for row in found.rows if row.answer.startswith(ENTITY)}
        entities = [f"{ENTITY}{i}" for i in range(len(named))]
        counts = collections.Counter(w for row in train for w in row.passage.split())
        counts.update(w for row in train for w in row.question.split())
        common = sorted((-n, w) for w, n in counts.items() if n >= found.least and w not in named)
        words = [*entities, UNK, *(w for _, w in common)]
        seen = sorted({row.answer for row in train} - named)
        chosen = [*entities, *seen]
        if kind == "vocabulary":
            chosen = [*words, *(answer for answer in seen if answer not in set(words))]
        return {
            "vocabulary": words,
            "answers": chosen,
            "entities": len(entities),
            "kinds": sorted({row.kind for row in found.rows}, key=lambda k: (len(k), k)),
        }

    def sequences(self, spec: dict, rows: list[Question]) -> Sequences:
        """Questions as numbers; an answer that training lacks is -1, which no network gives."""
        word, answer, kind = (
            {name: i for i, name in enumerate(spec[of])}
            for of in ("vocabulary", "answers", "kinds")
        )

        def encoded(text: str) -> np.ndarray:
            return np.array([word.get(w, word[UNK]) for w in text.split()], np.int32)

        asked = [encoded(row.question) for row in rows]
        lengths = np.array([len(words) for words in asked], np.int32)
        question = np.zeros((len(rows), max(lengths, default=1)), np.int32)
        for to, words in zip(question, asked, strict=True):
            to[: len(words)] = words
        return Sequences(
            {"inputs": [encoded(row.passage) for row in rows]},
            {
                "question": question,
                "question_lengths": lengths,
                "targets": np.array([answer.get(row.answer, -1) for row in rows], np.int32),
                "kind": np.array([kind.get(row.kind, -1) for row in rows], np.int32),
                "index": np.arange(len(rows), dtype=np.int32),
            },
        )

    def at_width(self, config: ConfigDict, spec: dict, n: int) -> ConfigDict:
        """embed_size 0 becomes n, as in the paper."""
        config = super().at_width(config, spec, n)
        config.embed_size = config.embed_size or n
        return config

    def model(self, config: ConfigDict, spec: dict, rngs: nnx.Rngs) -> AttentiveReader:
        return AttentiveReader(
            cell_of(config),
            len(spec["vocabulary"]),
            config.embed_size,
            config.hidden_size,
            len(spec["answers"]),
            bidirectional=config.bidirectional,
            rngs=rngs,
            **stack_options(config),
        )

    def batches(
        self, config: ConfigDict, dataset: Dataset, split: str, protocol: str, rows: slice
    ) -> Batches:
        train = protocol == "train"
        return answers.NamedBatches(
            dataset.splits[split].first(0 if train else config.eval_tokens), config.batch_size,
            entities=dataset.spec["entities"], seed=config.seed, shuffle=train, rows=rows,
        )  # fmt: skip

    def masks(
        self,
        config: ConfigDict,
        net: AttentiveReader,
        key: Array,
        rows: Array,
        batch: dict[str, Array],
    ) -> ReaderMasks:
        """drop_i drops of word vectors at each word by itself, of the inputs of further layers by
        one mask a sequence; drop_o of g."""
        of_passage, of_question, of_g = jax.random.split(key, 3)
        rates = Rates(0.0, config.drop_i, config.drop_h, 0.0)

        def drawn(key: Array, stack: Any, steps: int) -> Masks:
            masks = dropout.draw(key, rates, stack, rows)
            if not config.drop_i:
                return masks
            shape = (steps, stack.in_features)
            words = _rows(jax.random.fold_in(key, 1), rows, config.drop_i, shape)
            return masks._replace(i=(jnp.swapaxes(words, 0, 1), *masks.i[1:]))

        return ReaderMasks(
            drawn(of_passage, net.passage, batch["inputs"].shape[1]),
            drawn(of_question, net.question, batch["question"].shape[1]),
            _rows(of_g, rows, config.drop_o, (net.output_weights.shape[0],)),
        )

    def cost(
        self,
        net: AttentiveReader,
        batch: dict[str, Array],
        carries: Any,
        masks: ReaderMasks | None,
    ) -> tuple[Array, Any, Sums]:
        (logits, _), weight, targets = net(batch, masks), batch["weight"], batch["targets"]
        known = (weight > 0) & (targets >= 0)
        nats = heads.softmax(logits, jnp.maximum(targets, 0), known)
        wrong = weight * (jnp.argmax(logits, axis=-1) != targets)
        sums = {
            "error": (jnp.sum(wrong), jnp.sum(weight)),
            "nll": (jnp.sum(nats), jnp.sum(known).astype(jnp.float32)),
        }
        return nats, carries, sums

    def predict(
        self, net: AttentiveReader, batch: dict[str, Array], carries: Any
    ) -> tuple[dict, Any]:
        """The probability of each answer, (B, A), and the attention, (B, T)."""
        logits, attention = net(batch)
        return {"probabilities": jax.nn.softmax(logits), "attention": attention.T}, carries

    def function(self, config: ConfigDict, spec: dict) -> Function:
        def call(net: AttentiveReader, inputs: dict[str, Array], carries: Any) -> tuple[Array, Any]:
            return self.predict(net, inputs, carries)[0]["probabilities"], carries

        def score(p: Array, batch: dict[str, Array]) -> tuple[Any, Any]:
            wrong = jnp.argmax(p, axis=-1) != batch["targets"]
            return jnp.sum(batch["weight"] * wrong), jnp.sum(batch["weight"])

        inputs = {
            "inputs": (("batch", "time"), "int32"),
            "lengths": (("batch",), "int32"),
            "question": (("batch", "words"), "int32"),
            "question_lengths": (("batch",), "int32"),
        }
        return Function(inputs, "the probability of each answer", call, score)

    def unseen(self, config: ConfigDict, spec: dict, path: str) -> Unseen:
        """The questions of a file in the form of bAbI's, with or without answers."""
        if spec["entities"]:
            raise UserError("this network knows names as @entityN only: it can't read other files")
        _, found = babi.parse(Path(path).expanduser(), answers=False)
        batches = answers.NamedBatches(
            self.sequences(spec, found), config.batch_size, entities=0, shuffle=False
        )

        def rows(batch: dict, said: dict) -> list[dict[str, Any]]:
            table = []
            for row in np.flatnonzero(batch["weight"] > 0):
                index, p = int(batch["index"][row]), said["probabilities"][row]
                best = int(np.argmax(p))
                table.append(
                    {"row": index, "question": found[index].question}
                    | {"answer": spec["answers"][best], "probability": float(p[best])}
                )
            return table

        return Unseen(batches, rows)

    def unit(self, config: ConfigDict) -> Unit:
        return Unit("wrong answers, %", "error", 2, of=_percent)

    def baselines(self, config: ConfigDict, dataset: Dataset, split: str) -> dict[str, float]:
        """The answer that training has most often, in each task of bAbI; of names, the one that the
        passage has most often, and that next to the gap of a cloze."""
        scored = dataset.splits[split].first(config.eval_tokens)
        count = dataset.spec["entities"]
        if not count:
            return {"most frequent answer": answers.commonest(dataset.splits["train"], scored)}
        known = {"most frequent name": answers.most_frequent_name(scored, count)}
        if config.corpus not in _NEWS:  # there the passage is not what comes before the question
            known["nearest name"] = answers.nearest_name(scored, count)
        return known


def _is_folder(corpus: str) -> bool:
    """Whether a corpus is a folder of the user's own, not the name of one."""
    return corpus not in (*_NEWS, "babi") and not corpus.startswith(("babi/", "cloze/"))


def read(config: ConfigDict, say: Callable[[str], None]) -> Questions:
    """The questions of config.corpus. Raises UserError or Outage."""
    if config.corpus.partition("/")[0] == "babi":
        return babi.read(config.corpus, config.data_dir)
    if config.corpus in _NEWS:
        return cnn.read(config.corpus, config.data_dir, say)
    return cloze.read(config.corpus, config.data_dir, say)


def _rows(key: Array, rows: Array, drop: float, shape: tuple[int, ...]) -> Array | None:
    """A mask (B, ...) of a shape for each row of the global batch; None where nothing drops."""
    if not drop:
        return None
    keys = jax.vmap(partial(jax.random.fold_in, key))(rows)
    return jax.vmap(lambda k: dropout.bernoulli_mask(k, drop, shape))(keys)


def _percent(share: float) -> float:
    return 100 * share
