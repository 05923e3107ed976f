"""Recurrent Highway Network on text8.

Paper     Zilly et al. 2017, arXiv:1607.03474v5, text8 table: RHN, L = 10, 45M parameters
Expected  1.27 bits per character, test (published); variant `small` (20M) 1.29. The MI paper's
          ~4M networks (Wu et al. 2016, arXiv:1606.06630): `mi_rnn` 1.52, `mi_lstm` 1.44 (c: as
          quoted by another paper); one-hot inputs and their batch of 128 are our interpretation
Cost      500 epochs of 14,062 updates. On 2 CPU cores (AVX-512) an epoch takes an estimated 21
          hours, at 1,160 tokens/s measured over a few updates; `mi_lstm` 3 hours. Needs a GPU
Command   python -m rnnx.train --config=text8 --workdir=runs/text8
Variants  --config=text8:small, :mi_rnn, :mi_lstm
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default()
    config.update(
        corpus="text8",
        level="char",
        cell="rhn",
        depth=10,
        hidden_size=1500,
        transform_bias=-4.0,
        init_scale=0.04,
        drop_x=0.1,
        drop_i=0.4,
        drop_h=0.1,
        drop_o=0.4,
        batch_size=128,
        num_steps=50,
        epochs=500,
        checkpoint_every=500,
        optimizer="sgd",
        learning_rate=0.2,
        lr_decay=1.03,
        flat_epochs=5,
        max_grad_norm=10.0,
        weight_decay=1e-7,
    )
    return variants(arg, config, {"small": small, "mi_rnn": mi_rnn, "mi_lstm": mi_lstm})


def small(config: ConfigDict) -> None:
    """RHN, L = 10, 1,000 units."""
    config.hidden_size, config.num_steps = 1000, 100


def mi_rnn(config: ConfigDict) -> None:
    """MI-RNN with {alpha, beta1, beta2} = {2, .5, .5} (~)."""
    _multiplicative(config)
    config.cell, config.mi_init = "rnn", (2.0, 0.5, 0.5)


def mi_lstm(config: ConfigDict) -> None:
    """MI-LSTM with {alpha, beta1, beta2} = {1, .5, .5} (~)."""
    _multiplicative(config)
    config.cell, config.mi_init = "lstm", (1.0, 0.5, 0.5)


def _multiplicative(config: ConfigDict) -> None:
    config.update(
        integration="mi",
        one_hot=True,
        depth=1,
        param_budget=4_000_000,
        init_scale=0.02,
        drop_x=0.0,
        drop_i=0.0,
        drop_h=0.0,
        drop_o=0.0,
        num_steps=50,
        epochs=20,
        optimizer="adam",
        learning_rate=1e-3,
        lr_decay=1.0,
        flat_epochs=1,
        patience=2,
        max_grad_norm=0.0,
        weight_decay=0.0,
    )
