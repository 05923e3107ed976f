"""Sequences of the UCR and UEA archives, to be told apart: `--config=ucr:NAME`.

Paper     none; Wang et al. 2017, arXiv:1611.06455, for the networks to compare with
Expected  test accuracy, and that of their MLP / FCN / ResNet:
          SyntheticControl     .98   .973 / .989 / .997
          MelbournePedestrian  .91   .863 / .912 / .909
          SwedishLeaf          .88   .845 / .967 / .963
          ItalyPowerDemand     .97   .953 / .963 / .962
          ECG200               .75   .914 / .888 / .874; not reached
          JapaneseVowels       .97   .976 / .993 / .992
Cost      2 s of training (ItalyPowerDemand) to 70 s (SwedishLeaf) on 2 CPU cores, and up to a
          minute to compile
Command   python -m rnnx.train --config=ucr:SyntheticControl --workdir=runs/synthetic_control
Data      both .tsv (or .ts) files of the set, put into the folder ucr/NAME of --config.data_dir
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants
from rnnx.errors import UserError

# What differs for a set, chosen on its valid part.
SETS = {
    "ECG200": {"optimizer": "adamw", "weight_decay": 0.3},
    "JapaneseVowels": {
        "cell": "lstm",
        "integration": "mi",
        "pool": "mean",
        "epochs": 100,
        "flat_epochs": 50,
        "lr_decay": 1.05,
    },
    "SwedishLeaf": {"integration": "mi", "init_scale": 0.2, "epochs": 80, "flat_epochs": 40},
}


def get_config(arg: str = "") -> ConfigDict:
    name, _, rest = arg.partition(",")
    if not name:
        raise UserError("name a set of the archive: --config=ucr:SyntheticControl")
    config = default("classify")
    config.update(
        corpus=f"ucr/{name}",
        cell="gru",
        hidden_size=64,
        bidirectional=True,
        pool="last",
        init_scale=0.1,
        drop_o=0.3,
        batch_size=16,
        epochs=60,
        flat_epochs=30,
        lr_decay=1.08,
        optimizer="adam",
        learning_rate=3e-3,
        max_grad_norm=1.0,
    )
    config.update(SETS.get(name, {}))
    return variants(rest, config, {})
