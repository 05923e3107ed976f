"""The update rule (optax) and the learning-rate schedules of both papers.

The learning rate is an argument of the step, not part of the rule: it follows from the epoch and
the number of halvings alone, so a checkpoint needs no schedule state.
"""

import optax
from ml_collections import ConfigDict


def update_rule(config: ConfigDict) -> optax.GradientTransformation:
    """Gradient to update direction: clip by global norm, then SGD, Adam or AdamW.

    The step subtracts learning rate times direction. L2 for sgd and adam is part of the loss, as
    in the RHN protocol; adamw decouples it.
    """
    parts = [optax.identity()]  # plain SGD without clipping
    if config.max_grad_norm:
        parts.append(optax.clip_by_global_norm(config.max_grad_norm))
    if config.optimizer in ("adam", "adamw"):
        parts.append(optax.scale_by_adam())
    if config.optimizer == "adamw":
        parts.append(optax.add_decayed_weights(config.weight_decay))
    return optax.chain(*parts)


def l2(config: ConfigDict) -> float:
    """The factor wd of `wd / 2 ||v||^2` in the loss."""
    return 0.0 if config.optimizer == "adamw" else config.weight_decay


def learning_rate(config: ConfigDict, epoch: int, halvings: int) -> float:
    """Learning rate of an epoch, counted from 0.

        learning_rate / lr_decay^max(epoch - flat_epochs + 1, 0) / 2^halvings

    The first divisor is the RHN schedule: epochs 0 .. flat_epochs - 1 run at the initial rate. The
    second counts halvings: by `patience`, as in the MI paper, and by on_nan=rollback.
    """
    exponent = max(epoch - config.flat_epochs + 1, 0)
    return config.learning_rate / config.lr_decay**exponent / 2**halvings
