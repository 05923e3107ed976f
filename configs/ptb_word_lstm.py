"""Variational LSTM with tied weights on Penn Treebank words, the RHN's baseline.

Paper     row quoted by Zilly et al. 2017, arXiv:1607.03474v5: variational LSTM with weight
          tying, 51M parameters, here two layers of 1,500 units
Expected  perplexity 75.8 valid, 73.2 test (quoted there). The recipe below is the RHN's, not that
          paper's, so that both cells are trained alike
Cost      500 epochs of 1,327 updates; 17 minutes an epoch on 2 CPU cores (AVX-512), at 909
          tokens/s measured over 12 updates
Command   python -m rnnx.train --config=ptb_word_lstm --workdir=runs/ptb_word_lstm
Variants  `small`: one layer, 3M parameters, 8 epochs, to compare with `ptb_word:small`;
          `trained`: 24 epochs, to compare with `ptb_word:trained`
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default()
    config.update(
        corpus="ptb_word",
        level="word",
        cell="lstm",
        num_layers=2,
        hidden_size=1500,
        tied=True,
        forget_bias=1.0,
        init_scale=0.04,
        drop_x=0.25,
        drop_i=0.75,
        drop_h=0.25,
        drop_o=0.75,
        batch_size=20,
        num_steps=35,
        epochs=500,
        optimizer="sgd",
        learning_rate=0.2,
        lr_decay=1.02,
        flat_epochs=20,
        max_grad_norm=10.0,
        weight_decay=1e-7,
    )
    return variants(arg, config, {"small": small, "trained": trained})


def small(config: ConfigDict) -> None:
    """One layer, 3M parameters; all else as in `ptb_word:small`."""
    config.update(
        num_layers=1,
        param_budget=3_000_000,
        drop_x=0.0,
        drop_i=0.2,
        drop_h=0.05,
        drop_o=0.2,
        epochs=8,
        lr_decay=2.0,
        flat_epochs=5,
    )


def trained(config: ConfigDict) -> None:
    """One layer, 3M parameters; all else as in `ptb_word:trained`."""
    small(config)
    config.update(epochs=24, flat_epochs=12, lr_decay=30 ** (1 / 12))
