"""Recurrent Highway Network on Bach's chorales as piano rolls: which keys sound next.

Paper     Zilly et al. 2017, arXiv:1607.03474v5, optimization experiment: RHN against DT-RNN and
          DT(S)-RNN at L = 1, 2, 4, 6, equal parameters at each depth, a search of SGD for each
Expected  a figure, no table: DT-RNN and DT(S)-RNN get worse with depth, RHN does not (~). The
          number of parameters, the epochs and the search space are our interpretation
Cost      960 updates, 8 s on 2 CPU cores; 16 minutes for the 120 runs of the sweep
Command   python -m rnnx.train --config=jsb --workdir=runs/jsb
Variants  `paper`: 500,000 parameters, 200 epochs
Sweep     python -m rnnx.sweep --config=jsb --workdir=runs/jsb_depth --workers=2
"""

import itertools
from collections.abc import Callable

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default()
    config.update(
        corpus="jsb",
        level="roll",
        cell="rhn",
        depth=2,
        param_budget=50_000,
        transform_bias=-2.0,
        init_scale=0.1,
        batch_size=20,
        num_steps=64,
        epochs=40,
        optimizer="sgd",
        learning_rate=0.1,
        max_grad_norm=10.0,
    )
    return variants(arg, config, {"paper": paper})


def sweep(config: ConfigDict, add: Callable) -> None:
    """Three cells at four depths, each with the same ten choices of learning rate and scale."""
    for cell, depth in itertools.product(("rhn", "dtrnn", "dtsrnn"), (1, 2, 4, 6)):
        for rate, scale in itertools.product((0.01, 0.03, 0.1, 0.3, 1.0), (0.05, 0.1)):
            add(cell=cell, depth=depth, learning_rate=rate, init_scale=scale)


def paper(config: ConfigDict) -> None:
    """More parameters and epochs."""
    config.update(param_budget=500_000, epochs=200)
