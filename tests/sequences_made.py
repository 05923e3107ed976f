"""Labelled sequences made for tests: arrays, tables, and engines in the form of C-MAPSS."""

from pathlib import Path

import numpy as np
import pandas as pd

from rnnx.data.series import Labelled


def labelled(count: int = 23, kind: str = "classify", steps: bool = False) -> Labelled:
    """Sequences of 2 to 9 steps of two columns: half train, a quarter valid, a quarter test."""
    rng = np.random.default_rng(0)
    inputs = [rng.normal(3, 2, (rng.integers(2, 10), 2)).astype(np.float32) for _ in range(count)]
    part = np.array([0, 0, 1, 2] * count, np.int8)[:count]
    names = tuple(f"s{i}" for i in range(count))
    if kind == "classify":
        labels = rng.integers(0, 3, count)
        return Labelled(names, inputs, labels, None, ("a", "b"), ("x", "y", "z"), part)
    numbers = [rng.normal(50, 20, len(x)) for x in inputs]
    labels = np.array([n[-1] for n in numbers])
    return Labelled(names, inputs, labels, numbers if steps else None, ("a", "b"), (), part)


def table(folder: Path, kind: str, count: int = 60, name: str = "t.csv") -> Path:
    """A long CSV file: sequences of 6 steps that rise or fall; the number is the slope."""
    rng, rows = np.random.default_rng(1), []
    for i in range(count):
        slope = rng.uniform(0.2, 1) * rng.choice([-1, 1])
        for t in range(6):
            label = {"classify": "up" if slope > 0 else "down", "regress": 100 * slope}[kind]
            row = {"id": f"n{i}", "t": t, "a": slope * t + 0.05 * rng.normal(), "b": rng.normal()}
            rows.append(row | {"label": label})
    path = folder / name
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def engines(folder: Path) -> Path:
    """Files of C-MAPSS: sensor 2 tells the age, other columns are noise or constant."""
    rng, rest = np.random.default_rng(2), []
    for file, count in (("train", 20), ("test", 6)):
        rows = []
        for engine in range(1, count + 1):
            life = int(rng.integers(30, 50))
            seen = life if file == "train" else int(rng.integers(15, life))
            for t in range(seen):
                row = np.ones(26)
                row[:2], row[5] = (engine, t + 1), rng.normal()
                row[6] = 600 - (life - 1 - t) + rng.normal()
                rows.append(row)
            if file == "test":
                rest.append(life - seen)
        np.savetxt(folder / f"{file}_FD001.txt", rows, fmt="%.4f")
    np.savetxt(folder / "RUL_FD001.txt", rest, fmt="%d")
    return folder / "train_FD001.txt"
