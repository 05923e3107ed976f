"""Bidirectional MI-LSTM with CTC on strings of spoken digits.

Paper     none; strings of 3 to 7 digits, joined from the Free Spoken Digit Dataset
Expected  measured: 0.7 % of digits wrong on unseen takes (seed 0; 1.5 % on valid, by which the
          recipe was chosen)
Cost      1,800 strings, 1.5 hours of sound; 12 minutes on one CPU core beside other work
Command   python -m rnnx.train --config=digits --workdir=runs/digits
Variants  `unseen`: one speaker is held out for the test; `lstm`: additive; `streaming`:
          one-directional
"""

from ml_collections import ConfigDict

from rnnx.config import default, variants


def get_config(arg: str = "") -> ConfigDict:
    config = default("speech")
    config.update(
        corpus="digits",
        cell="lstm",
        integration="mi",
        bidirectional=True,
        hidden_size=96,
        num_layers=2,
        frame_stack=3,
        init_scale=0.1,
        drop_i=0.2,
        drop_o=0.3,
        weight_noise=0.04,
        batch_size=16,
        epochs=30,
        optimizer="adam",
        learning_rate=2e-3,
        lr_decay=1.3,
        flat_epochs=18,
        max_grad_norm=10.0,
    )
    return variants(arg, config, {"unseen": unseen, "lstm": lstm, "streaming": streaming})


def unseen(config: ConfigDict) -> None:
    """All strings of one speaker are for the test."""
    config.corpus = "digits/theo"


def lstm(config: ConfigDict) -> None:
    """The additive LSTM, to compare with."""
    config.integration = "additive"


def streaming(config: ConfigDict) -> None:
    """Reads forward only, so that it can emit as the sound comes in."""
    config.bidirectional = False
