"""MI-RNN of 2,048 units on Penn Treebank characters.

Paper     Wu et al. 2016, arXiv:1606.06630, PTB character table: MI-RNN
Expected  1.39 bits per character, test (c: as quoted by another paper); variant `rnn`: 1.42 (~,
          recalled). The authors tuned the initial alpha, beta1, beta2 and do not give them; these
          are those of their text8 MI-RNN. Windows of 50, Adam and the weights' range are those of
          the paper's analysis (~); one-hot inputs and the batch of 50 are our interpretation
Cost      2,006 updates an epoch; 8 minutes an epoch on 2 CPU cores (AVX-512), at 11,358 tokens/s
          measured over 40 updates
Command   python -m rnnx.train --config=ptb_char --workdir=runs/ptb_char
Variants  `rnn`; `small`: 1M parameters, 2 epochs, for CPUs; `trained`: 100,000 parameters, 16
          epochs, for comparisons of tuned cells. Other cells: --config.cell=lstm; linearrnn is the
          paper's linear MI-RNN, 1.48 (~)
Sweep     RNN and MI-RNN; with `small` every cell, additive, with simple and with general MI:
          python -m rnnx.sweep --config=ptb_char:small --workdir=runs/mi_char
"""

from collections.abc import Callable

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
    return variants(arg, config, {"rnn": rnn, "small": small, "trained": trained})


def sweep(config: ConfigDict, add: Callable) -> None:
    """The paper's two rows; with a parameter budget, every cell with every integration, RNN and
    LSTM with three seeds."""
    if not config.param_budget:
        add(integration="mi")
        add(integration="additive")
        return
    for seed in range(3):
        for cell, depth in (("rnn", 1), ("lstm", 1), ("gru", 1), ("rhn", 5)):
            if seed and cell in ("gru", "rhn"):
                continue
            for integration in ("additive", "mi_simple", "mi"):
                add(cell=cell, depth=depth, integration=integration, seed=seed)


def small(config: ConfigDict) -> None:
    """1M parameters, {alpha, beta1, beta2} = {1, .5, .5}, a larger learning rate, 2 epochs."""
    config.update(
        param_budget=1_000_000,
        mi_init=(1.0, 0.5, 0.5),
        init_scale=0.04,
        batch_size=32,
        epochs=2,
        learning_rate=1e-3,
        lr_decay=4.0,
        max_grad_norm=10.0,
        patience=0,
    )


def trained(config: ConfigDict) -> None:
    """100,000 parameters, 16 epochs: four at one learning rate, which then falls to a thirtieth."""
    small(config)
    config.update(param_budget=100_000, epochs=16, flat_epochs=4, lr_decay=30 ** (1 / 12))


def rnn(config: ConfigDict) -> None:
    """The additive RNN, the paper's baseline."""
    config.integration = "additive"
