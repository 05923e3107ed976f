"""Data of your own: forecasts, classes, numbers, or text; what `rnnx.compare` starts from.

Paper     none
Expected  rnnx.compare prints the scores of simple predictors beside the networks'
Cost      30 epochs; how long they take depends on the data, and rnnx.compare plans it first
Command   python -m rnnx.train --config=own:forecast --config.corpus=FILE.csv --workdir=DIR
Variants  `forecast` (as without one), `classify`, `regress`, `text`
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants
from rnnx.errors import UserError

_TASKS = {"forecast": "forecast", "classify": "classify", "regress": "regress", "text": "language"}


def get_config(arg: str = "") -> ConfigDict:
    kind, _, rest = arg.partition(",")
    kind = kind or "forecast"
    if kind not in _TASKS:
        raise UserError(f"own:{kind}: name one of {', '.join(f'own:{each}' for each in _TASKS)}")
    config = default(_TASKS[kind])
    config.update(
        cell="lstm",
        hidden_size=128 if kind == "text" else 64,
        init_scale=0.1,
        batch_size=32,
        num_steps=64,
        epochs=30,
        optimizer="adam",
        learning_rate=3e-3,
        max_grad_norm=1.0,
    )
    return variants(rest, config, {})
