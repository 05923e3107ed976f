"""Recurrent Highway Network on Penn Treebank characters.

Paper     none: the RHN paper has no Penn Treebank character row. The recipe is that of its
          enwik8 L = 5 network (Zilly et al. 2017, arXiv:1607.03474v5), at 600 units
Expected  not published; the MI paper's best on this corpus is 1.39 bits per character
Cost      1,003 updates an epoch; 7 minutes an epoch on 2 CPU cores (AVX-512), at 12,942 tokens/s
          measured over 40 updates
Command   python -m rnnx.train --config=ptb_char_rhn --workdir=runs/ptb_char_rhn
Variants  `mi`: Multiplicative Integration at l = 1; `trained`: L = 3, 100,000 parameters, the
          recipe of `ptb_char:trained`
Sweep     the forms that MI can take in an RHN: scripts/reproduce-mi-rhn
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default()
    config.update(
        corpus="ptb_char",
        level="char",
        cell="rhn",
        depth=5,
        hidden_size=600,
        transform_bias=-4.0,
        init_scale=0.04,
        drop_x=0.1,
        drop_i=0.3,
        drop_h=0.05,
        drop_o=0.3,
        batch_size=100,
        num_steps=50,
        epochs=200,
        optimizer="sgd",
        learning_rate=0.2,
        lr_decay=1.04,
        flat_epochs=5,
        max_grad_norm=10.0,
        weight_decay=1e-7,
    )
    return variants(arg, config, {"mi": mi, "trained": trained})


def mi(config: ConfigDict) -> None:
    """MI-RHN: input and state meet by general Multiplicative Integration."""
    config.integration = "mi"


def trained(config: ConfigDict) -> None:
    """L = 3, 100,000 parameters, 16 epochs of Adam without dropout, as `ptb_char:trained`."""
    config.update(
        depth=3,
        param_budget=100_000,
        transform_bias=-2.0,
        mi_init=(1.0, 0.5, 0.5),
        one_hot=True,
        drop_x=0.0,
        drop_i=0.0,
        drop_h=0.0,
        drop_o=0.0,
        batch_size=32,
        epochs=16,
        optimizer="adam",
        learning_rate=1e-3,
        lr_decay=30 ** (1 / 12),
        flat_epochs=4,
        weight_decay=0.0,
    )


def sweep(config: ConfigDict, add: Callable) -> None:
    """Additive and with MI: from additive, in one gate, in every layer, and with bounded terms."""
    forms = [
        {"integration": "additive"},
        {"integration": "mi"},
        {"integration": "mi", "mi_init": (0.0, 1.0, 1.0)},
        {"integration": "mi", "mi_gates": "h"},
        {"integration": "mi", "mi_gates": "t"},
        {"integration": "additive", "input_every": True},
        {"integration": "mi", "input_every": True},
        {"integration": "additive", "norm": "layer"},
        {"integration": "mi", "norm": "layer"},
        {"integration": "mi", "norm": "tanh"},
    ]
    for form in forms:
        add(**form)
