"""Attentive reader with MI-LSTMs on questions about CNN's news, cut to four sentences.

Paper     Wu et al. 2016, arXiv:1606.06630, section 4.4, after Cooijmans et al. 2017,
          arXiv:1603.09025, section 5.4
Expected  valid error 47.2 % (~), an LSTM 50.3 %; their cut leaves 43 % without the answer
Cost      380,298 questions of Hermann et al. 2015, for a GPU; not run here
Command   python -m rnnx.train --config=cnn --workdir=runs/cnn
Variants  `lstm`: additive, with gradients clipped at 10; `ln`: that with layer normalization

The recipe: 240 units and word vectors, batches of 64, Adam at 8e-5, dropout .5 of word vectors and
before the softmax over all words, which names share with the passage. Departures: which four
sentences are near is our own rule (`rnnx/data/cnn.py`); W, W_d and M start uniform, with the
deviation of .05 times an orthogonal matrix, which they and U have in the authors' code, while their
W_q, W_c, W_q' and W_m are 20 times as wide; names are permuted in each question by itself, not in a
batch alike; epochs in place of a check every 1,000 updates.
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default("reading")
    config.update(
        corpus="cnn",
        answers="vocabulary",
        cell="lstm",
        integration="mi",
        hidden_size=240,
        forget_bias=0.0,
        init_scale=0.0056,
        orthogonal=0.05,
        drop_i=0.5,
        drop_o=0.5,
        batch_size=64,
        epochs=10,
        optimizer="adam",
        learning_rate=8e-5,
        max_grad_norm=0.0,
    )
    return variants(arg, config, {"lstm": lstm, "ln": ln})


def lstm(config: ConfigDict) -> None:
    """The additive LSTM, to compare with."""
    config.update(integration="additive", max_grad_norm=10.0)


def ln(config: ConfigDict) -> None:
    """The additive LSTM with layer normalization, in place of the papers' batch normalization."""
    config.update(integration="additive", norm="layer", max_grad_norm=10.0)
