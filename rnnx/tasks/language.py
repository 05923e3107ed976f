"""The next symbol of a text: words, characters or bytes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from rnnx import data, dropout, heads
from rnnx.config import cell_of
from rnnx.data.batches import Batches, ScoringWindows, Windows, capped
from rnnx.data.vocabulary import Vocabulary
from rnnx.dropout import Masks, Rates
from rnnx.errors import UserError
from rnnx.model import LanguageModel, restarted
from rnnx.tasks import dynamic, monte_carlo
from rnnx.tasks.measures import bits, perplexity
from rnnx.tasks.network import stack_options
from rnnx.tasks.task import Dataset, Function, Scores, Sums, Task, Unit, check_fraction, over_window

FULL_STEPS = 256  # time steps a call at batch 1; the score does not depend on it


class Language(Task):
    """Predicts each symbol of a text from those before it; the state is carried over windows.

    Scores: nll, the mean of nats a target; ppl = exp(nll); bpc = nll / ln 2; tokens, the targets.
    """

    counted = "tokens"
    spec_file = "vocabulary.json"
    protocols = {"mc": monte_carlo.score, "dynamic": dynamic.score}  # noqa: RUF012

    def check(self, config: ConfigDict) -> None:
        """Refuses one-hot inputs with tied weights, and an embedding that contradicts them."""
        check_fraction(config)
        if config.one_hot and config.tied:
            raise UserError("one_hot inputs have no embedding for tied weights to share")
        if config.tied and config.embed_size not in (0, config.hidden_size):
            raise UserError(
                f"tied weights need embed_size = hidden_size ({config.hidden_size}) or 0, "
                f"not {config.embed_size}"
            )

    def load(self, config: ConfigDict, say: Callable[[str], None]) -> Dataset:
        """A built-in corpus, or a file of the user's own; of its training part the first share."""
        corpus = data.load(config.corpus, config.level, config.data_dir, say)
        own = corpus.name not in data.BUILT_IN
        place = str(Path(config.corpus).expanduser().resolve()) if own else config.corpus
        train = corpus.train[: math.ceil(config.fraction * len(corpus.train))]
        return Dataset(
            name=corpus.name,
            splits={"train": train, "valid": corpus.valid, "test": corpus.test},
            spec=corpus.vocabulary,
            sums=corpus.sums,
            sizes=(len(train), len(corpus.valid), len(corpus.test)),
            about=(f"{corpus.level} level, {corpus.vocabulary.size:,} types, sizes in tokens",),
            fields={"level": corpus.level, "corpus": place},
            places=("corpus",) if own else (),
        )

    def at_width(self, config: ConfigDict, spec: Vocabulary, n: int) -> ConfigDict:
        """embed_size 0 becomes the authors' rule: n for words and tied weights, else V."""
        if config.one_hot and config.embed_size not in (0, spec.size):
            raise UserError(
                f"one_hot inputs have no embedding: embed_size={config.embed_size} must be 0"
            )
        if config.tied and config.embed_size and config.param_budget:
            raise UserError(
                "param_budget solves the width of a tied network: leave embed_size at 0"
            )
        config = super().at_width(config, spec, n)
        if not config.embed_size:
            words = config.level == "word" and not config.one_hot
            config.embed_size = n if config.tied or words else spec.size
        return config

    def model(self, config: ConfigDict, spec: Vocabulary, rngs: nnx.Rngs) -> LanguageModel:
        return LanguageModel(
            cell_of(config),
            spec.size,
            config.hidden_size,
            embed_size=0 if config.one_hot else config.embed_size,
            tied=config.tied,
            rngs=rngs,
            **stack_options(config),
        )

    def zero_carry(self, net: LanguageModel, batch_size: int) -> Any:
        return net.stack.zero_carry(batch_size)

    def masks(
        self,
        config: ConfigDict,
        net: LanguageModel,
        key: Array,
        rows: Array,
        batch: dict[str, Array],
    ) -> Masks:
        """Equal words of a row share a draw, as in the RHN authors' code."""
        tokens = batch["inputs"].T
        rates = Rates(config.drop_x, config.drop_i, config.drop_h, config.drop_o)
        masks = dropout.draw(key, rates, net.stack, rows, tokens.shape[0])
        return dropout.share_draws(masks, tokens)

    def cost(
        self,
        net: LanguageModel,
        batch: dict[str, Array],
        carries: Any,
        masks: Masks | None,
    ) -> tuple[Array, Any, Sums]:
        """Cross-entropy summed over the window."""
        carries = restarted(carries, batch["fresh"])
        nll, carries = net.nll(batch["inputs"].T, batch["targets"].T, carries, masks)
        costs, sums = over_window("nll", nll, batch["weight"])
        return costs, carries, sums

    def predict(
        self, net: LanguageModel, batch: dict[str, Array], carries: Any
    ) -> tuple[dict[str, Array], Any]:
        """Nats of each target, (B, T)."""
        carries = restarted(carries, batch["fresh"])
        nll, carries = net.nll(batch["inputs"].T, batch["targets"].T, carries)
        return {"nll": nll.T}, carries

    def function(self, config: ConfigDict, spec: Vocabulary) -> Function:
        def call(net: LanguageModel, inputs: dict[str, Array], carries: Any) -> tuple[Array, Any]:
            logits, carries = net(inputs["inputs"].T, carries)
            return jnp.swapaxes(logits, 0, 1), carries

        def score(logits: Array, batch: dict[str, Array]) -> tuple[Any, Any]:
            nll = heads.softmax(logits, batch["targets"])
            return over_window("nll", nll.T, batch["weight"])[1]["nll"]

        meaning = "logits of the next symbol: a softmax gives its probabilities"
        return Function({"inputs": (("batch", "time"), "int32")}, meaning, call, score)

    def batches(
        self, config: ConfigDict, dataset: Dataset, split: str, protocol: str, rows: slice
    ) -> Batches:
        tokens = dataset.splits[split]
        if protocol == "train":
            return Windows(
                tokens,
                config.batch_size,
                config.num_steps,
                rows,
                reset_prob=config.reset_prob,
                seed=config.seed,
            )
        tokens = capped(tokens, config.eval_tokens)
        if protocol == "full":
            return ScoringWindows(tokens, 1, FULL_STEPS)
        return ScoringWindows(tokens, config.batch_size, config.num_steps, rows)

    def scores(self, sums: Sums) -> Scores:
        known = super().scores(sums)
        nll = known["nll"]
        return {"nll": nll, "ppl": perplexity(nll), "bpc": bits(nll), "tokens": known["tokens"]}

    def unit(self, config: ConfigDict) -> Unit:
        return {
            "word": Unit("perplexity", "ppl", 2, perplexity, logarithmic=True),
            "char": Unit("bits per character", "bpc", 4, bits),
            "byte": Unit("bits per byte", "bits per byte", 4, bits),
        }[config["level"]]

    def uninformed(self, spec: Vocabulary) -> float:
        """Every symbol equally likely."""
        return math.log(spec.size)

    def baselines(self, config: ConfigDict, dataset: Dataset, split: str) -> dict[str, float]:
        """Every symbol equally likely; the training split's frequencies, add-one."""
        size = dataset.spec.size
        scored = capped(dataset.splits[split], config.eval_tokens)
        counts = _counts(dataset.splits["train"], size) + 1.0
        nats = _counts(scored[1:], size) @ -np.log(counts / counts.sum())
        frequencies = float(nats) / (len(scored) - 1)
        return {"uniform": self.uninformed(dataset.spec), "symbol frequencies": frequencies}

    def spec_to_json(self, spec: Vocabulary) -> dict:
        return spec.to_json()

    def spec_from_json(self, stored: dict) -> Vocabulary:
        return Vocabulary.from_json(stored)


def _counts(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """How often each symbol occurs; some MB at a time, as bincount makes them 8 bytes each."""
    counts, step = np.zeros(vocab_size, np.int64), 1 << 22
    for i in range(0, len(tokens), step):
        counts += np.bincount(tokens[i : i + step], minlength=vocab_size)
    return counts
