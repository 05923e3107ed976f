"""Bidirectional LSTM with CTC on AN4: spelled words, names and numbers.

Paper     Wu et al. 2016, arXiv:1606.06630, has MI-LSTM with CTC on WSJ; this is a small corpus in
          its place
Expected  measured: 5.5 % CER, 12.9 % WER on the 130 test utterances (seed 0, likeliest path).
          ESPnet's BLSTM with CTC alone has 12.6 % CER, its transformer with CTC 3.6 %
Cost      848 utterances, 0.63 hours of sound; 5 to 15 minutes on one CPU core
Command   python -m rnnx.train --config=an4 --workdir=runs/an4
Variants  `lstm`: additive; `phones`; `streaming`: one-directional
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default("speech")
    config.update(
        corpus="an4",
        cell="lstm",
        integration="mi",
        bidirectional=True,
        hidden_size=128,
        num_layers=2,
        frame_stack=3,
        init_scale=0.1,
        drop_i=0.2,
        drop_o=0.2,
        batch_size=16,
        epochs=40,
        optimizer="adam",
        learning_rate=2e-3,
        lr_decay=10 ** (1 / 15),
        flat_epochs=25,
        max_grad_norm=10.0,
    )
    return variants(arg, config, {"lstm": lstm, "phones": phones, "streaming": streaming})


def lstm(config: ConfigDict) -> None:
    """The additive LSTM, to compare with."""
    config.integration = "additive"


def phones(config: ConfigDict) -> None:
    """Phones by the corpus' dictionary instead of letters."""
    config.labels = "phone"


def streaming(config: ConfigDict) -> None:
    """Reads forward only, so that it can emit as the sound comes in."""
    config.bidirectional = False
