"""Series made for tests, whose every number is another."""

import numpy as np

from rnnx.data.series import Scaling, Series


def made(
    *lengths: int, targets: int = 2, past: int = 1, known: int = 1, gaps: float = 0.0, seed: int = 0
) -> Series:
    """Series of so many rows: 60 % train, 20 % valid; a share of the targets is missing."""
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=(n, targets)) * 3 + 5 for n in lengths]
    for v in values:
        v[rng.random(v.shape) < gaps] = np.nan
    return Series(
        tuple(f"s{i}" for i in range(len(lengths))),
        tuple(f"y{k}" for k in range(targets)),
        tuple(f"c{k}" for k in range(past)),
        tuple(f"d{k}" for k in range(known)),
        values,
        [rng.normal(size=(n, past)) for n in lengths],
        [rng.normal(size=(n, known)) for n in lengths],
        [np.arange(n) for n in lengths],
        "1 row",
        4,
        np.array([[int(n * 0.6), int(n * 0.8)] for n in lengths]),
    )


def scalings(series: Series) -> list[tuple[Scaling, Scaling, Scaling]]:
    """Of the training parts."""
    return [
        tuple(Scaling.of(a[i][:end]) for a in (series.values, series.covariates, series.ahead))
        for i, end in enumerate(series.ends[:, 0])
    ]
