"""Recurrent Highway Network on enwik8 (Hutter Prize), bytes.

Paper     Zilly et al. 2017, arXiv:1607.03474v5, enwik8 table: RHN, L = 10, 46M parameters
Expected  1.27 bits per byte, test (published); variant `rhn5` (L = 5, 23M) 1.31; variant
          `mi_lstm` (Wu et al. 2016, arXiv:1606.06630) 1.44 (c: as quoted by another paper). Its
          17M parameters are 18.9M here: one-hot inputs are our interpretation
Cost      500 epochs of 14,062 updates. On 2 CPU cores (AVX-512) an epoch takes an estimated 21
          hours, at 1,160 tokens/s measured over a few updates; `mi_lstm` 11 hours. Needs a GPU
Command   python -m rnnx.train --config=enwik8 --workdir=runs/enwik8
Variants  --config=enwik8:rhn5, :mi_lstm
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default()
    config.update(
        corpus="enwik8",
        level="byte",
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
    return variants(arg, config, {"rhn5": rhn5, "mi_lstm": mi_lstm})


def rhn5(config: ConfigDict) -> None:
    """RHN, L = 5, 1,500 units."""
    config.update(depth=5, drop_i=0.3, drop_h=0.05, drop_o=0.3, batch_size=100, lr_decay=1.04)


def mi_lstm(config: ConfigDict) -> None:
    """MI-LSTM, 2,048 units, as in the authors' code; the learning rate is one of their three."""
    config.update(
        cell="lstm",
        integration="mi",
        one_hot=True,
        mi_init=(1.0, 1.0, 1.0),
        depth=1,
        hidden_size=2048,
        init_scale=0.02,
        drop_x=0.0,
        drop_i=0.0,
        drop_h=0.0,
        drop_o=0.0,
        batch_size=100,
        num_steps=100,
        epochs=20,
        optimizer="adam",
        learning_rate=1e-3,
        lr_decay=1.0,
        flat_epochs=1,
        patience=2,
        max_grad_norm=0.0,
        weight_decay=0.0,
    )
