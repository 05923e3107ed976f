"""Recurrent Highway Network on Penn Treebank words, tied weights: the paper's best model.

Paper     Zilly et al. 2017, arXiv:1607.03474v5, depth table, L = 10 tied: 23.5M parameters
Expected  perplexity 68.3 valid, 66.0 test (published; with a smaller, unknown weight decay
          67.9 / 65.4)
Cost      500 epochs of 1,327 updates; 10 minutes an epoch on 2 CPU cores (AVX-512), at 1,633
          tokens/s measured over 40 updates
Command   python -m rnnx.train --config=ptb_word --workdir=runs/ptb_word
Variants  `untied`: separate softmax weights, 71.3 / 68.3 with 31.8M (published);
          `small`: 3M parameters, 8 epochs, for CPUs;
          `trained`: 3M parameters, 24 epochs, for comparisons of tuned networks
Depth     --config.depth=5 --config.hidden_size=1000, or any depth at the same size with
          --config.param_budget=23500000
Sweep     the paper's depth table; with `small`, seven depths at one size:
          python -m rnnx.sweep --config=ptb_word --workdir=runs/rhn_depth
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default()
    config.update(
        corpus="ptb_word",
        level="word",
        cell="rhn",
        depth=10,
        hidden_size=830,
        tied=True,
        transform_bias=-2.0,
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
    return variants(arg, config, {"untied": untied, "small": small, "trained": trained})


def sweep(config: ConfigDict, add: Callable) -> None:
    """Every transition depth: with the paper's units, or those that a budget allows."""
    units = (1275, 1180, 1110, 1050, 1000, 960, 920, 890, 860, 830)
    if config.param_budget:
        for depth in (1, 2, 3, 4, 5, 7, 10):
            add(depth=depth)
    else:
        for depth, hidden_size in enumerate(units, start=1):
            add(depth=depth, hidden_size=hidden_size)


def small(config: ConfigDict) -> None:
    """3M parameters at any depth, little dropout, 8 epochs."""
    config.update(
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
    """3M parameters, 24 epochs: half at one learning rate, which then falls to a thirtieth."""
    small(config)
    config.update(epochs=24, flat_epochs=12, lr_decay=30 ** (1 / 12))


def untied(config: ConfigDict) -> None:
    """Separate softmax weights: 71.3 / 68.3 with 31.8M parameters."""
    config.tied = False
