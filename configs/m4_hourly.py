"""The 414 hourly series of the M4 competition, two days ahead, by one network.

Paper     none; Makridakis et al. 2020, "The M4 competition", for the data and the measures
Expected  test MASE .97, sMAPE 14.5; seasonal naive 1.193 and 13.912; the organisers' RNN 3.048 and
          14.698, their MLP 2.607 and 13.842; the winner .893 and 9.328
Cost      2,065 updates, 2 min 30 s on 2 CPU cores
Command   python -m rnnx.train --config=m4_hourly --workdir=runs/m4_hourly
Data      Hourly-train.csv and Hourly-test.csv of github.com/Mcompetitions/M4-methods, downloaded
          when needed
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default("forecast")
    config.update(
        corpus="m4_hourly",
        layout="wide",
        horizon=48,
        season=24,
        scaling="window",
        anchor="season",
        head="quantile",
        cell="lstm",
        integration="mi",
        hidden_size=64,
        init_scale=0.1,
        batch_size=32,
        num_steps=192,
        warmup=168,
        epochs=5,
        flat_epochs=2,
        lr_decay=2.0,
        optimizer="adam",
        learning_rate=3e-3,
        max_grad_norm=1.0,
    )
    return variants(arg, config, {})
