"""Bidirectional MI-LSTM with CTC on the Wall Street Journal: characters, 81 hours of sound.

Paper     Wu et al. 2016, arXiv:1606.06630, speech table (recalled): MI-LSTM 6.0 % CER and 8.2 %
          WER on eval92, their LSTM 6.5 and 8.7
Expected  not run: the corpus (LDC93S6B, LDC94S13B) is sold. Network and inputs are Eesen's: 4
          bidirectional layers of 320, 40 mel bands with deltas. Adam 1e-4 and weight noise .05 are
          the paper's (recalled); validation on dev93, batch of 16 and gradient norm are our choice
Cost      8.5M parameters; features need 15 GB of memory
Data      Kaldi's folders of train_si284, test_dev93 and test_eval92 as wsj/train, wsj/valid and
          wsj/test, with wav.scp naming wav or flac files: sph2pipe -f wav makes them
Command   python -m rnnx.train --config=wsj --config.corpus=wsj --workdir=runs/wsj
Variants  `lstm`: additive
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default("speech")
    config.update(
        corpus="wsj",
        cell="lstm",
        integration="mi",
        bidirectional=True,
        hidden_size=320,
        num_layers=4,
        init_scale=0.1,
        weight_noise=0.05,
        batch_size=16,
        epochs=60,
        optimizer="adam",
        learning_rate=1e-4,
        patience=3,
        max_grad_norm=50.0,
    )
    return variants(arg, config, {"lstm": lstm})


def lstm(config: ConfigDict) -> None:
    """The additive LSTM, to compare with."""
    config.integration = "additive"
