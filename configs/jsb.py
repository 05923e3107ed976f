"""Recurrent Highway Network on Bach's chorales as piano rolls: which keys sound next.

Paper     Zilly et al. 2017, arXiv:1607.03474v5, optimization experiment: RHN against DT-RNN and
          DT(S)-RNN at L = 1, 2, 4, 6, equal parameters at each depth, a search of SGD's rate each
Expected  a picture, no table: the training loss of the first two grows with depth, RHN's does
          not (~). Sizes, clipping and ranges of the search are our reading
Cost      TODO
Command   python -m rnnx.train --config=configs/jsb.py --workdir=runs/jsb
Search    python -m rnnx.sweep --config=configs/jsb.py --workdir=runs/jsb_search --trials=16
          --search="learning_rate=log:0.003..3;init_scale=log:0.02..0.2" --config.depth=4
"""

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
        init_scale=0.08,
        batch_size=20,
        num_steps=80,
        epochs=60,
        optimizer="sgd",
        learning_rate=0.05,
        max_grad_norm=10.0,
    )
    return variants(arg, config, {})
