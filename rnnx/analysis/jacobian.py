"""Jacobians of whole transitions, their eigenvalues and their Gersgorin discs.

Every eigenvalue of a matrix A lies in the union over i of the discs with centre a_ii and radius
sum_{j != i} |a_ij|. The eigenvalues of a transition's Jacobian J_ij = d s'_i / d s_j from one time
step to the next say how a small change of the state, or a gradient on its way back, grows or
shrinks: it keeps its size at modulus 1, vanishes below and explodes above. The state of the LSTM is
h and c, concatenated. RHN paper, section 4.
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
    """The Jacobian J (N, N) of one whole transition, of all L blocks in deep cells.

    N is n times the number of states. Computed in forward mode.

    Args:
      carry: the state before the transition, arrays (n,).
      wx: the input term of each block, (G n,) or None.
    """
    n = carry[0].shape[-1]

    def step(flat: Array) -> Array:
        states = tuple(flat[i * n : (i + 1) * n] for i in range(cell.num_states))
        return jnp.concatenate(cells.step(cell, params, states, wx))

    return jax.jacfwd(step)(jnp.concatenate(carry))


def discs(jacobian: np.ndarray) -> Discs:
    """Gersgorin's discs of a matrix (N, N), by rows."""
    centres = np.diagonal(jacobian)
    return Discs(centres, np.abs(jacobian).sum(axis=1) - np.abs(centres))


def eigenvalues(jacobian: np.ndarray) -> np.ndarray:
    """All eigenvalues of a matrix (N, N), the largest in modulus first."""
    values = np.linalg.eigvals(jacobian.astype(np.float64))
    return values[np.argsort(-np.abs(values))]


def outside(values: np.ndarray, found: Discs) -> float:
    """The largest distance of a value from the union of the discs; 0 if all lie in it."""
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
