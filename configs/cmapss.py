"""C-MAPSS FD001: how many cycles a turbofan engine has left, at most 125.

Paper     none; Saxena et al. 2008 for the data and the score; Zheng et al. 2017 ("Long short-term
          memory network for remaining useful life estimation") for the LSTM to compare with
Expected  test RMSE 13.8, C-MAPSS score 285; that LSTM 16.1 and 338; least squares on the last row
          20.8 and 1,259; the mean 41.9
Cost      400 updates, 6 s on 2 CPU cores, and most of a minute to compile
Command   python -m rnnx.train --config=cmapss --workdir=runs/cmapss
Data      the three files of FD001 from NASA, put into the folder cmapss of --config.data_dir
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default("regress")
    config.update(
        corpus="cmapss",
        cap=125,
        cell="gru",
        hidden_size=48,
        init_scale=0.1,
        drop_o=0.2,
        batch_size=8,
        epochs=40,
        flat_epochs=20,
        lr_decay=1.1,
        optimizer="adam",
        learning_rate=3e-3,
        max_grad_norm=1.0,
    )
    return variants(arg, config, {})
