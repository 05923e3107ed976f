"""Whether an exported function gives what rnnx gives, on held-out data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from rnnx.data.batches import Batches
from rnnx.export.functions import Exports
from rnnx.score import local_mesh, make_scorer, total
from rnnx.tasks.task import Sums, Unit
from rnnx.trained import Run

LIMIT = 1e-4
STEPS = 200  # of a batch that the step function is fed with, one by one

Runner = Callable[[dict[str, np.ndarray]], list[np.ndarray]]


class Row(NamedTuple):
    """A comparison: of what, the primary score, the largest difference from rnnx."""

    name: str
    score: float | None = None
    difference: float | None = None

    def told(self, unit: Unit, own: float | None) -> tuple[str, str]:
        """Score and difference as text; where a score is not own, how far it is from it."""
        score = "" if self.score is None else unit.show(self.score)
        if self.score is not None and score != unit.show(own):
            score += f" ({unit.of(self.score) - unit.of(own):+.{unit.digits}f})"
        if self.difference is None:
            return score, ""
        return score, f"{self.difference:.1e}" if self.difference else "0"


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest |ours - theirs|, relative where |ours| exceeds 1; inf for a NaN or a shape that
    only one of them has."""
    if ours.shape != theirs.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):
        away = np.abs(ours.astype(np.float64) - theirs) / np.maximum(np.abs(ours), 1)
    alike = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    away = np.where(alike, 0, np.where(np.isfinite(away), away, np.inf))
    return float(away.max(initial=0))


def zeros(exports: Exports, rows: int) -> list[np.ndarray]:
    """The zero state."""
    return [np.zeros((rows, *shape), np.float32) for shape in exports.state]


def own_score(run: Run, batches: Batches) -> float:
    """The primary score by rnnx's own evaluation."""
    sums = make_scorer(run.task, run.graphdef, local_mesh())(run.params, batches)
    return _mean(sums[run.task.primary])


def sequences(
    name: str, run: Run, exports: Exports, theirs: Runner, batches: Batches, display: Any = None
) -> Row:
    """Compares the function of whole sequences on all batches, both from rnnx's state.

    Each from its own, two networks that round differently could part for good over a long text.
    """
    ours, score = jax.jit(exports.functions[0].call), jax.jit(exports.function.score)
    state = zeros(exports, batches.batch_size)
    parts: list[Sums] = []
    worst = 0.0
    for i, batch in enumerate(batches):
        if "fresh" in batch:
            state = [_restarted(s, batch["fresh"]) for s in state]
        inputs = {key: batch[key] for key in exports.function.inputs}
        a = jax.device_get(ours(exports.params, *inputs.values(), *state))
        b = theirs(inputs | {f"state.{k}": s for k, s in enumerate(state)})
        worst = max(worst, *map(difference, a, b))
        state = a[1:]
        parts.append({"score": jax.device_get(score(b[0], batch))})
        if display:
            display.update(i + 1)
    return Row(name, _mean(total(parts)["score"]), worst)


def steps(name: str, exports: Exports, theirs: Runner, batches: Batches) -> Row:
    """Compares the first steps of the first batch, one by one, with the whole sequence."""
    batch = batches[0]
    inputs = {key: batch[key][:, :STEPS] for key in exports.function.inputs}
    rows, count = inputs["inputs"].shape[:2]
    state = zeros(exports, rows)
    whole = jax.jit(exports.functions[0].call)
    a = jax.device_get(whole(exports.params, *inputs.values(), *state))
    worst = 0.0
    for t in range(count):
        now = {key: np.ascontiguousarray(x[:, t]) for key, x in inputs.items()}
        y, *state = theirs(now | {f"state.{k}": s for k, s in enumerate(state)})
        worst = max(worst, difference(a[0][:, t], y))
    return Row(name, None, max(worst, *map(difference, a[1:], state)))


def _mean(sums: tuple[Any, Any]) -> float:
    return float(sums[0]) / float(sums[1])


def _restarted(state: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    return np.where(fresh[:, None] > 0, np.float32(0), state)
