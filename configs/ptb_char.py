"""MI-RNN of 2,048 units on Penn Treebank characters.

Paper     Wu et al. 2016, arXiv:1606.06630, PTB character table: MI-RNN
Expected  1.39 bits per character, test (published); variant `rnn`: 1.42 (~, recalled). The
          initial alpha, beta1, beta2 were searched by the authors and are not known; these are
          the ones of their text8 MI-RNN. Windows of 50, Adam and the weights' range are those
          of the paper's analysis runs (~); one-hot inputs and the batch of 50 are our reading
Cost      2,006 updates an epoch; 8 minutes an epoch on 2 CPU cores (AVX-512), from
          the rate of 11,358 tokens/s over 40 updates
Command   python -m rnnx.train --config=configs/ptb_char.py --workdir=runs/ptb_char
Others    --config=configs/ptb_char.py:rnn; any cell by --config.cell=lstm and the like
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default()
    config.update(
        corpus="ptb_char",
        level="char",
        cell="rnn",
        integration="mi",
        mi_init=(2.0, 0.5, 0.5),
        hidden_size=2048,
        one_hot=True,
        init_scale=0.02,
        batch_size=50,
        num_steps=50,
        epochs=50,
        optimizer="adam",
        learning_rate=1e-4,
        patience=2,
        max_grad_norm=0.0,
    )
    return variants(arg, config, {"rnn": rnn})


def rnn(config: ConfigDict) -> None:
    """The additive RNN beside it."""
    config.integration = "additive"
