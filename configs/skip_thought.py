"""Skip-thought vectors of sentences with an MI-GRU encoder, on novels.

Paper     Wu et al. 2016, arXiv:1606.06630, after Kiros et al. 2015, arXiv:1506.06726: words of
          620 numbers, GRUs of 2,400 units, MI in the encoder with alpha, beta1, beta2 = 1 and
          biases 0. They train on BookCorpus, which is no longer to be had; novels stand in for it
Expected  transfer, MI (and GRU): SICK Pearson .8588 (.8436), MR 77.9 (75.9), CR 82.3 (80.1), SUBJ
          93.3 (93.0), MPQA 88.1 (87.0) (~), from 70 times as much text
Cost      `novels`: 4 epochs of 1,714 updates, an estimated 25 minutes of one CPU core, from .19 s
          measured for one update; the paper's network needs a GPU
Command   python -m rnnx.train --config=skip_thought:novels --workdir=runs/skip_thought
Variants  `novels`: small; `gru`: additive

The authors' code clips the norm of a batch's summed gradient at 5; here a batch's mean is taken,
so the clip is 5 / 64.
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default("sentences")
    config.update(
        corpus="novels",
        cell="gru",
        reset_after=True,
        integration="mi",
        hidden_size=2400,
        embed_size=620,
        init_scale=0.1,
        orthogonal=1.0,
        batch_size=64,
        epochs=5,
        optimizer="adam",
        learning_rate=2e-4,
        max_grad_norm=5 / 64,
    )
    return variants(arg, config, {"novels": novels, "gru": gru})


def novels(config: ConfigDict) -> None:
    """For one CPU core."""
    config.update(
        hidden_size=200,
        embed_size=80,
        vocab_size=10_000,
        orthogonal=0.0,
        softmax_sample=500,
        epochs=4,
        learning_rate=1e-3,
    )


def gru(config: ConfigDict) -> None:
    """The additive GRU, to compare with."""
    config.integration = "additive"
