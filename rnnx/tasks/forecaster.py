"""The network of the task `forecast`: a stack over a series, and a head for H steps ahead."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from rnnx import heads
from rnnx.cells import Cell
from rnnx.data.batches import Batch
from rnnx.dropout import Masks
from rnnx.model import VectorModel
from rnnx.tasks.task import Function

_LEAST_SPREAD = 0.1


class Columns(NamedTuple):
    """How many columns of each kind the inputs hold, in this order."""

    targets: int  # K
    past: int  # known up to the present
    known: int  # known ahead
    given: int  # of those, the first ones: the user's own, read H steps ahead too


class Forecaster(VectorModel):
    """Forecasts from the last steps of a window; all values scaled.

        y_{t+h} = a_{t,h} + o_{t,h},  o_t = (Stack(x)_t S + b), h = 1..H

    a is the anchor: y at the same time of the last known season, t + h - S ceil(h / S); with
    season S = 1 the last value, with S = 0 none. At each step the stack reads the targets, the
    covariates, and the given columns of the H steps ahead.

    With `recursive` the head gives one step, and later ones come from feeding back the forecasts.
    """

    def __init__(
        self,
        cell: Cell,
        columns: Columns,
        hidden_size: int,
        *,
        horizon: int,
        warmup: int,
        season: int,
        levels: tuple[float, ...],
        recursive: bool,
        local: bool,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Draws the variables as `VectorModel`, whose options these are.

        Args:
          horizon, warmup, season: H; the steps of a window that make no forecast; S.
          levels: of the quantiles; () for a mean and a standard deviation.
          recursive: one step at a time.
          local: scale each window by the mean and spread of its warm-up too.
        """
        self.columns, self.horizon, self.warmup, self.season = columns, horizon, warmup, season
        self.levels, self.recursive, self.local = levels, recursive, local
        self.numbers = len(levels) or 2  # of each forecast value
        self.steps = 1 if recursive else horizon  # that the head gives
        width = columns.targets + columns.past + columns.known + columns.given * self.steps
        outputs = self.steps * columns.targets * self.numbers
        super().__init__(cell, width, hidden_size, outputs, rngs=rngs, **options)

    def forecasts(self, batch: dict[str, Array], masks: Masks | None = None) -> Array:
        """A batch of `SeriesWindows` to (P, B, H, K, 2), mean and log std as of `heads.gaussian`,
        or (P, B, H, K, Q), quantiles. H is what the batch has targets for, and P the steps after
        the warm-up."""
        xs, ahead = (jnp.swapaxes(batch[name], 0, 1) for name in ("inputs", "ahead"))
        # Sizes by shape, not len: exported, the number of steps is a symbol.
        steps = batch["values"].shape[1] - xs.shape[0]
        level, spread = self._local(xs)
        k = self.columns.targets
        xs = jnp.concatenate([(xs[..., :k] - level) / spread, xs[..., k:]], axis=-1)
        if self.recursive and steps > 1:
            found = self._rollout(xs, ahead, steps)
        else:
            ys, _ = self.outputs(self._with_given(xs, ahead), None, masks)
            found = self._anchored(self.project(ys[self.warmup :]), self._anchors(xs))
        if not self.local:
            return found
        level, spread = level[:, None, :, None], spread[:, None, :, None]  # (B, 1, K, 1)
        if self.levels:
            return found * spread + level
        return jnp.concatenate(
            [found[..., :1] * spread + level, found[..., 1:] + jnp.log(spread)], -1
        )

    def _local(self, xs: Array) -> tuple[Array, Array]:
        """Mean and spread (B, K) of the targets' warm-up; 0 and 1 unless they are asked for."""
        warmup = xs[: self.warmup, :, : self.columns.targets]
        if not self.local:
            return jnp.zeros_like(warmup[0]), jnp.ones_like(warmup[0])
        # At least a tenth of the series' own: a window may be constant.
        return jnp.mean(warmup, axis=0), jnp.maximum(jnp.std(warmup, axis=0), _LEAST_SPREAD)

    def center(self, forecasts: Array) -> Array:
        """The forecast itself, (..., K): the mean, or the median."""
        if not self.levels:
            return forecasts[..., 0]
        return heads.sorted_quantiles(forecasts)[..., self.levels.index(0.5)]

    def interval(self, forecasts: Array, coverage: float) -> tuple[Array, Array]:
        """Low and high, (..., K): of a Gaussian by its coverage, else the outermost quantiles."""
        if not self.levels:
            return heads.gaussian_interval(forecasts, coverage)
        ascending = heads.sorted_quantiles(forecasts)
        return ascending[..., 0], ascending[..., -1]

    def costs(self, forecasts: Array, targets: Array, where: Array) -> Array:
        """Nats or pinball loss of targets (..., K), 0 where that is false."""
        if not self.levels:
            return heads.gaussian(forecasts, targets, where)
        return heads.quantiles(forecasts, targets, self.levels, where)

    def _with_given(self, xs: Array, ahead: Array) -> Array:
        """Inputs (T, B, ..) with the given columns of the steps ahead beside them."""
        given = ahead[..., : self.columns.given]
        later = [given[h : h + xs.shape[0]] for h in range(1, self.steps + 1) if self.columns.given]
        return jnp.concatenate([xs, *later], axis=-1)

    def _anchors(self, xs: Array) -> Array | None:
        """a_{t,h} of every step after the warm-up, (P, B, H, K)."""
        if not self.season:
            return None
        h = jnp.arange(1, self.steps + 1)
        t = jnp.arange(self.warmup, xs.shape[0])[:, None]
        at = t + h - self.season * (-(-h // self.season))  # (P, H)
        return jnp.swapaxes(xs[at][..., : self.columns.targets], 1, 2)

    def _anchored(self, outputs: Array, anchors: Array | None) -> Array:
        """Outputs (P, B, H K R) to (P, B, H, K, R), what is a place moved by the anchor."""
        shape = (*outputs.shape[:-1], self.steps, self.columns.targets, self.numbers)
        outputs = outputs.reshape(shape)
        if anchors is None:
            return outputs
        if self.levels:
            return outputs + anchors[..., None]
        return jnp.concatenate([outputs[..., :1] + anchors[..., None], outputs[..., 1:]], axis=-1)

    def _rollout(self, xs: Array, ahead: Array, steps: int) -> Array:
        """Forecasts of so many steps from each step after the warm-up, one by one.

        Past covariates stay at their last value. The spread of a later step is what the head gives
        there, as if the forecasts fed back were true.
        """
        k, rows = self.columns.targets, xs.shape[1]
        inputs = self._with_given(xs, ahead)

        def read(carries, x):
            ys, carries = self.stack(x[None], carries, time_major=True)
            return carries, (ys[0], carries)

        zero = self.stack.zero_carry(rows)
        _, (ys, carries) = jax.lax.scan(read, zero, inputs)
        origins = jnp.arange(self.warmup, xs.shape[0])
        pairs = origins.shape[0] * rows  # P B; -1 would not do for no columns
        flat = lambda a: a[origins].reshape(pairs, a.shape[-1])  # noqa: E731
        ys, carries = flat(ys), jax.tree.map(flat, carries)
        season = max(self.season, 1)
        before = origins[:, None] + jnp.arange(1 - season, 1)  # the last S known values
        recent = jnp.moveaxis(xs[before][..., :k], 1, 0).reshape(season, pairs, k)
        past = flat(xs)[:, k : k + self.columns.past]

        def following(state, h):
            ys, carries, recent = state
            out = self.project(ys)[None]
            anchors = recent[None, 0][..., None, :] if self.season else None
            out = self._anchored(out, anchors)[0, :, 0]  # (P B, K, R)
            value = self.center(out)
            now = ahead[origins + h].reshape(pairs, ahead.shape[-1])
            after = ahead[jnp.minimum(origins + h + 1, ahead.shape[0] - 1)]
            given = after.reshape(pairs, ahead.shape[-1])[:, : self.columns.given]
            x = jnp.concatenate([value, past, now, given], axis=-1)
            ys, carries = self.stack(x[None], carries, time_major=True)
            recent = jnp.concatenate([recent[1:], value[None]])
            return (ys[0], carries, recent), out

        _, out = jax.lax.scan(following, (ys, carries, recent), jnp.arange(1, steps + 1))
        out = out.reshape(steps, origins.shape[0], rows, k, self.numbers)
        return jnp.moveaxis(out, 0, 2)


def exported(config: ConfigDict, spec: dict) -> Function:
    """What of a `Forecaster` leaves JAX: forecasts from every step after the warm-up, scaled as
    the inputs are."""
    horizon, targets = spec["horizon"], len(spec["targets"])
    columns = [targets, len(spec["past"]), len(spec["known"])]
    inputs = {"inputs": (("batch", "time", sum(columns)), "float32")}
    beyond = ("batch", f"time + {horizon}")
    ahead = spec["known"] if config.decode == "recursive" else spec["table"]["known"]
    if ahead:
        inputs["ahead"] = ((*beyond, len(spec["known"])), "float32")

    def call(net: Forecaster, inputs: dict[str, Array], carries: Any) -> tuple[Array, Any]:
        rows, steps = inputs["inputs"].shape[:2]
        empty = jnp.zeros((rows, steps + horizon, targets))
        found = net.forecasts({"ahead": empty[..., :0], "values": empty} | inputs)
        if net.levels:
            found = heads.sorted_quantiles(found)
        else:
            mean, log_std = heads.mean_and_log_std(found)
            found = jnp.stack([mean, jnp.exp(log_std)], axis=-1)
        return jnp.swapaxes(found, 0, 1), carries

    def score(found: Array, batch: dict[str, Array]) -> tuple[Any, Any]:
        at = config.levels.index(0.5) if config.head == "quantile" else 0
        center = jnp.swapaxes(found, 0, 1)[..., at]
        wanted = targets_of(batch, center.shape)
        where = jnp.isfinite(wanted) & (batch["weight"].T[..., None, None] > 0)
        errors = jnp.abs(center - jnp.where(where, wanted, 0))
        return jnp.sum(jnp.where(where, errors, 0)), jnp.sum(where)

    numbers = (
        f"the quantiles {', '.join(f'{q:g}' for q in config.levels)}"
        if config.head == "quantile"
        else "mean and standard deviation"
    )
    meaning = (
        f"(batch, time - {config.warmup}, {horizon} steps ahead, {targets} columns): {numbers}, "
        f"scaled, from each step after the first {config.warmup}"
    )
    return Function(inputs, meaning, call, score, least=config.warmup + 1)


def targets_of(batch: Batch, shape: tuple[int, ...]) -> Array:
    """The targets of forecasts (P, B, H, ..): (P, B, H, K)."""
    origins, _, steps = shape[:3]
    values = jnp.swapaxes(batch["values"], 0, 1)
    first = values.shape[0] - steps - origins
    at = first + jnp.arange(origins)[:, None] + jnp.arange(1, steps + 1)
    return jnp.swapaxes(values[at], 1, 2)
