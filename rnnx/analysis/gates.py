"""Gate activity over a text: by time, by unit and by token, and how long units keep their state."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from rnnx import model
from rnnx.analysis import trace
from rnnx.cells import CELLS, Cell

_CHUNK = 64  # time steps whose gates are held in memory at once


class Gate(NamedTuple):
    """The activity of one gate of one block (of deep cells: one depth) of one layer."""

    layer: int
    block: int
    letter: str
    name: str
    over_time: np.ndarray  # (2, T): mean and standard deviation over units
    of_units: np.ndarray  # (n,): mean over the text
    of_tokens: np.ndarray  # (V,): mean over units at each token; NaN where it does not occur


def over_text(
    graphdef: Any, params: dict[str, Array], cell: Cell, tokens: np.ndarray, vocab_size: int
) -> tuple[list[Gate], list[np.ndarray]]:
    """Every gate's activity while a text (N,) is read from the zero state.

    Returns:
      The gates, if the cell has any, and for each layer the mean share of its state that a unit
      keeps over a step (n,): of an RHN the product over depths of 1 - t (or c), of an LSTM or GRU
      the forget or update gate. For other cells that array is empty.
    """
    net = model.merge(graphdef, params)
    carries = net.stack.zero_carry(1)
    times: dict[tuple, list[np.ndarray]] = {}
    units: dict[tuple, np.ndarray] = {}
    by_token: dict[tuple, np.ndarray] = {}
    carried: list[np.ndarray] = [np.zeros(0)] * len(net.stack.layers)
    counts = np.bincount(tokens, minlength=vocab_size)
    for start in range(0, len(tokens), _CHUNK):
        part = np.asarray(tokens[start : start + _CHUNK], np.int32)
        carries, insides = trace.read(graphdef, params, part[:, None], carries)
        for i, inside in enumerate(jax.device_get(insides)):
            for k, block in enumerate(inside.gates):
                for letter, activity in block.items():
                    if letter not in CELLS[cell.kind].gates:
                        continue
                    a, key = activity[:, 0].astype(np.float64), (i, k, letter)
                    times.setdefault(key, []).append(np.stack([a.mean(1), a.std(1)]))
                    units[key] = units.get(key, 0.0) + a.sum(axis=0)
                    total = by_token.setdefault(key, np.zeros(vocab_size))
                    np.add.at(total, part, a.mean(axis=1))
            kept = _carried(cell, inside)
            if kept is not None:
                carried[i] = (carried[i] if carried[i].size else 0.0) + kept[:, 0].sum(axis=0)
    found = [
        Gate(
            *key,
            CELLS[cell.kind].gates[key[2]],
            np.concatenate(times[key], axis=1),
            units[key] / len(tokens),
            np.where(counts > 0, by_token[key] / np.maximum(counts, 1), np.nan),
        )
        for key in times
    ]
    return found, [c / len(tokens) for c in carried]


def _carried(cell: Cell, inside: trace.Layer) -> np.ndarray | None:
    """The share of a unit's state kept over each step, (T, B, n); None for cells without gates."""
    letter = CELLS[cell.kind].keeps
    if letter == "c" and cell.coupled:
        shares = [1 - block["t"] for block in inside.gates]
    else:
        shares = [block[letter] for block in inside.gates if letter in block]
    return np.prod(np.stack(shares).astype(np.float64), axis=0) if shares else None


def memory_length(carried: np.ndarray) -> np.ndarray:
    """Steps after which 1 / e of a unit's state is left if only its mean gate acts."""
    return -1 / np.log(np.clip(carried, 1e-12, 1 - 1e-9))
