"""Jacobians of whole transitions, their eigenvalues and their Gersgorin discs.

Every eigenvalue of a matrix A lies in the union over i of the discs with centre a_ii and radius
sum_{j != i} |a_ij|. Of a transition's Jacobian J_ij = d s'_i / d s_j, from one time to the next,
they tell how a small change of the state, and backward a gradient, grows or shrinks: eigenvalues
at 1 keep it, inside the unit circle lose it, outside let it explode. RHN paper, section 4. Of the
LSTM the state is h and c side by side.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnx import cells
from rnnx.cells import Carry, Cell, Params


class Discs(NamedTuple):
    """Gersgorin's discs of one matrix (N, N)."""

    centres: np.ndarray  # (N,)
    radii: np.ndarray  # (N,)


def transition_jacobian(
    cell: Cell, params: Params, carry: Carry, wx: tuple[Array | None, ...]
) -> Array:
    """J (N, N) of one whole transition at a state, each (n,), and its input terms, each (G n,).

    N = n times the number of states. Forward mode, column by column at once: for deep cells the
    whole chain of L blocks.
    """
    n = carry[0].shape[-1]

    def step(flat: Array) -> Array:
        states = tuple(flat[i * n : (i + 1) * n] for i in range(cell.num_states))
        return jnp.concatenate(cells.step(cell, params, states, wx))

    return jax.jacfwd(step)(jnp.concatenate(carry))


def discs(jacobian: np.ndarray) -> Discs:
    """The discs of a matrix, by rows."""
    centres = np.diagonal(jacobian)
    return Discs(centres, np.abs(jacobian).sum(axis=1) - np.abs(centres))


def eigenvalues(jacobian: np.ndarray) -> np.ndarray:
    """All eigenvalues, complex, the largest in modulus first."""
    values = np.linalg.eigvals(jacobian.astype(np.float64))
    return values[np.argsort(-np.abs(values))]


def outside(values: np.ndarray, found: Discs) -> float:
    """How far the farthest value lies outside the union of the discs; 0 if none does."""
    distances = np.abs(values[:, None] - found.centres) - found.radii  # (values, discs)
    return max(float(distances.min(axis=1).max()), 0.0)


def uniform_radius(n: int, scale: float) -> tuple[float, float]:
    """Mean and standard deviation of a disc's radius for entries U(-scale, scale), n by n.

    The n - 1 absolute values off the diagonal are U(0, scale).
    """
    return (n - 1) * scale / 2, scale * math.sqrt((n - 1) / 12)


def gaussian_radius(n: int, deviation: float) -> tuple[float, float]:
    """The same for entries N(0, deviation^2): half-normal absolute values."""
    mean = deviation * math.sqrt(2 / math.pi)
    return (n - 1) * mean, deviation * math.sqrt((n - 1) * (1 - 2 / math.pi))
