"""Electricity transformer temperature, hourly: all seven columns, one day or four ahead.

Paper     none; Zhou et al. 2021, arXiv:2012.07436, for the data and the protocol: 12 / 4 / 4 months
          of 30 days, MSE and MAE of standardised values over all columns
Expected  test MSE / MAE, beside the same hour yesterday and ridge on 96 lags:
          h = 24: .327 / .363; .424 / .389; .298 / .344
          h = 96: .431 / .419; .512 / .433; .384 / .391
          The network beats the same hour. It does not beat ridge
Cost      5,400 updates, 30 s on 2 CPU cores (an epoch of `h96` takes 5 s)
Command   python -m rnnx.train --config=etth1 --workdir=runs/etth1
Variants  `h96`: four days ahead
Data      ETTh1.csv of github.com/zhouhaoyi/ETDataset, downloaded when needed
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default("forecast")
    config.update(
        corpus="etth1",
        parts=(8640, 2880, 2880),
        horizon=24,
        separate=True,
        scaling="window",
        anchor="season",
        head="quantile",
        cell="gru",
        integration="mi",
        hidden_size=96,
        init_scale=0.1,
        drop_o=0.2,
        batch_size=16,
        num_steps=120,
        warmup=96,
        epochs=10,
        flat_epochs=5,
        lr_decay=1.6,
        optimizer="adam",
        learning_rate=4e-3,
        max_grad_norm=1.0,
    )
    return variants(arg, config, {"h96": h96})


def h96(config: ConfigDict) -> None:
    """Four days ahead."""
    config.horizon = 96
