"""Sequences of the UCR and UEA archives, to be told apart: `--config=ucr:NAME`.

Paper     none; Wang et al. 2017, arXiv:1611.06455, for the networks to compare with
Expected  accuracy of their MLP / FCN / ResNet: SyntheticControl .973 / .989 / .997,
          MelbournePedestrian .863 / .912 / .909, SwedishLeaf .845 / .967 / .963, ItalyPowerDemand
          .953 / .963 / .962, ECG200 .914 / .888 / .874, JapaneseVowels .976 / .993 / .992
Cost      a minute or two each on 2 CPU cores
Command   python -m rnnx.train --config=ucr:SyntheticControl --workdir=runs/synthetic_control
Data      NAME_TRAIN.tsv and NAME_TEST.tsv (or .ts) of the archive, in $RNNX_DATA/ucr/NAME
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants
from rnnx.errors import UserError


def get_config(arg: str = "") -> ConfigDict:
    name, _, rest = arg.partition(",")
    if not name:
        raise UserError("name a set of the archive: --config=ucr:SyntheticControl")
    config = default("classify")
    config.update(
        corpus=f"ucr/{name}",
        cell="lstm",
        integration="mi",
        hidden_size=64,
        bidirectional=True,
        pool="mean",
        init_scale=0.1,
        drop_o=0.3,
        batch_size=16,
        epochs=100,
        flat_epochs=50,
        lr_decay=1.05,
        optimizer="adam",
        learning_rate=3e-3,
        max_grad_norm=1.0,
    )
    return variants(rest, config, {})
