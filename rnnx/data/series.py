"""Containers of numeric data: series to forecast, sequences with labels."""

from typing import NamedTuple

import numpy as np


class Series(NamedTuple):
    """S series of a table, regular in time."""

    names: tuple[str, ...]  # of the S series; ("",) for a single one
    targets: tuple[str, ...]  # K column names
    past: tuple[str, ...]  # C names of covariates known up to now only
    known: tuple[str, ...]  # D names of covariates known ahead, calendar features included
    values: list[np.ndarray]  # S arrays (T_s, K) float64, NaN where missing, own units
    covariates: list[np.ndarray]  # S arrays (T_s, C) float64, no NaN (filled forward)
    ahead: list[np.ndarray]  # S arrays (T_s, D) float64, no NaN
    times: list[np.ndarray]  # S arrays (T_s,): datetime64[s], or int64 counts without a time column
    step: str  # time step for people: "1 hour", "15 minutes", "1 day", "1 month", "1 row"
    season: int  # steps of a season, 0: none
    ends: np.ndarray  # (S, 2) ints: rows of train; rows of train + valid. Test is the rest.


class Labelled(NamedTuple):
    """N sequences, each with a class or a number."""

    ids: tuple[str, ...]  # N
    inputs: list[np.ndarray]  # N arrays (T_i, F) float32, finite
    labels: np.ndarray  # (N,) int64 class numbers; or (N,) float64 numbers
    steps: list[np.ndarray] | None  # targets of every step (T_i,) float64 (C-MAPSS), else None
    columns: tuple[str, ...]  # F names
    classes: tuple[str, ...]  # names of classes; () for numbers
    part: np.ndarray  # (N,) int8: 0 train, 1 valid, 2 test
