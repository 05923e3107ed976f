"""The next H steps of series of numbers, from all that is known up to now."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from rnnx.config import cell_of
from rnnx.data import sets, table
from rnnx.data.ahead import prolonged
from rnnx.data.batches import Batches
from rnnx.data.series import Scaling, Series, SeriesWindows, origins_of
from rnnx.dropout import Masks
from rnnx.errors import UserError
from rnnx.tasks import floors
from rnnx.tasks.forecaster import Columns, Forecaster, exported, targets_of
from rnnx.tasks.network import stack_options
from rnnx.tasks.task import Dataset, Function, Sums, Task, Unit, Unseen, check_fraction

COVERAGE = 0.8  # of the interval that a Gaussian head is asked for
PARTS = {"train": 0, "valid": 1, "test": 2}


class Forecast(Task):
    """Predicts H steps of K columns from the state after the last known step (`Forecaster`).

    Several series share one network; each is scaled by mean and standard deviation of its own
    training part. Of each value the network gives a mean and a standard deviation, or quantiles,
    and is trained on likelihood or pinball loss.

    Scores are means over origins, steps ahead and columns, of scaled values: mae, mse, and what
    is trained, nll or pinball. Values that are missing in the data are left out.
    """

    primary, counted = "mae", "values"

    def check(self, config: ConfigDict) -> None:
        super().check(config)
        if config.warmup >= config.num_steps:
            raise UserError(f"warmup={config.warmup} must be below num_steps={config.num_steps}")
        if config.num_steps < 2:
            raise UserError("num_steps must be at least 2: a step to warm up, and one to forecast")
        for name in ("parts", "levels"):
            if not all(isinstance(x, int | float) for x in config[name]):
                raise UserError(f"{name} must be numbers, not {config[name]}")
        if config.head == "quantile":
            levels = config.levels
            if list(levels) != sorted(set(levels)) or not all(0 < q < 1 for q in levels):
                raise UserError(f"levels must ascend between 0 and 1, not {levels}")
            if 0.5 not in levels:
                raise UserError(f"levels must hold 0.5, the forecast itself, not only {levels}")
        check_fraction(config)

    def load(self, config: ConfigDict, say: Callable[[str], None]) -> Dataset:
        files, options = source(config, say)
        series, notes, warnings = table.read_series(
            files["train"],
            test=files.get("test"),
            season=config.season or None,
            parts=config.parts,
            horizon=config.horizon,
            **options,
        )
        like = table.describe(series, time=config.time, group=config.group, layout=config.layout)
        series = shortened(series, config.fraction)
        if config.separate:
            series = separated(series)
        sizes = tuple(
            sum(map(len, origins_of(series, part, config.horizon))) for part in PARTS.values()
        )
        for part, size in zip(PARTS, sizes, strict=True):
            if not size:
                raise UserError(
                    f"horizon={config.horizon} is longer than the {part} part of every series: "
                    "lower it, or give that part more rows (parts)"
                )
            if not _any_value(series, _scored(config, series, part), config.horizon):
                raise UserError(
                    f"the {part} part has no value of {', '.join(series.targets)} to forecast: all "
                    "are missing"
                )
        spec = {
            "table": like,
            "horizon": config.horizon,
            "season": max(series.season, 1),
            "step": series.step,
            "targets": list(series.targets),
            "past": list(series.past),
            "known": list(series.known),
            "names": list(series.names),
            "scaling": [
                [s.to_json() for s in scaling_of(series, i)] for i in range(len(series.names))
            ],
        }
        found = series.season if series.season > 1 else "none"
        many = f"{len(series.names):,} series of " if len(series.names) > 1 else ""
        about = (
            f"{many}{sum(map(len, series.values)):,} rows, step {series.step}, season {found}; "
            "sizes in origins of a forecast",
            *notes,
            *(f"warning: {line}" for line in warnings),
        )
        sums = sets.checksums(files)
        splits = dict.fromkeys(PARTS, series)
        return Dataset(files["train"].stem, splits, spec, sums, sizes, about, *places(config))

    def at_width(self, config: ConfigDict, spec: dict, n: int) -> ConfigDict:
        """warmup 0 becomes a season, or half of the window where there is none."""
        config, season = super().at_width(config, spec, n), spec["season"]
        anchored = config.anchor == "season"
        if anchored and season >= config.num_steps:
            raise UserError(
                f"a season of {season} steps does not fit into windows of num_steps="
                f"{config.num_steps}: raise num_steps, or use anchor=last"
            )
        if not config.warmup:
            config.warmup = season if 1 < season < config.num_steps else config.num_steps // 2
        if anchored and config.warmup < season - 1:
            raise UserError(f"warmup={config.warmup} must be a season, {season} steps, or 0")
        return config

    def model(self, config: ConfigDict, spec: dict, rngs: nnx.Rngs) -> Forecaster:
        given = len(spec["table"]["known"])  # without those that were left out
        return Forecaster(
            cell_of(config),
            Columns(len(spec["targets"]), len(spec["past"]), len(spec["known"]), given),
            config.hidden_size,
            horizon=spec["horizon"],
            warmup=config.warmup,
            season={"none": 0, "last": 1, "season": spec["season"]}[config.anchor],
            levels=config.levels if config.head == "quantile" else (),
            recursive=config.decode == "recursive",
            local=config.scaling == "window",
            rngs=rngs,
            **stack_options(config),
        )

    def batches(
        self, config: ConfigDict, dataset: Dataset, split: str, protocol: str, rows: slice
    ) -> Batches:
        """In training a recursive network learns the next step only."""
        train = protocol == "train"
        horizon = 1 if train and config.decode == "recursive" else config.horizon
        series = dataset.splits[split]
        origins = (
            origins_of(series, PARTS[split], horizon) if train else _scored(config, series, split)
        )
        return windows(config, dataset.spec, series, origins, horizon, rows, train)

    def cost(
        self, net: Forecaster, batch: dict[str, Array], carries: Any, masks: Masks | None
    ) -> tuple[Array, Any, Sums]:
        """The mean loss of a row's values, and sums over all."""
        found = net.forecasts(batch, masks)  # (P, B, H, K, R)
        targets = targets_of(batch, found.shape)
        where = jnp.isfinite(targets) & (batch["weight"].T[..., None, None] > 0)
        targets = jnp.where(where, targets, 0)
        losses = net.costs(found, targets, where)
        errors = jnp.where(where, net.center(found) - targets, 0)
        count = jnp.sum(where)
        costs = jnp.sum(losses, (0, 2, 3)) / jnp.maximum(jnp.sum(where, (0, 2, 3)), 1)
        return costs, carries, {
            "mae": (jnp.sum(jnp.abs(errors)), count),
            "mse": (jnp.sum(errors**2), count),
            "pinball" if net.levels else "nll": (jnp.sum(losses), count),
        }  # fmt: skip

    def unit(self, config: ConfigDict) -> Unit:
        return Unit("mean absolute error, scaled", "mae", 4)

    def uninformed(self, spec: dict) -> float:
        """No more than that of the training part's mean."""
        return 1.0

    def baselines(self, config: ConfigDict, dataset: Dataset, split: str) -> dict[str, float]:
        """The last value; and the value at the same time of the last season."""
        series, season = dataset.splits[split], dataset.spec["season"]
        origins = _scored(config, series, split)
        floor = {"last value": 1} | ({"last season": season} if season > 1 else {})
        totals, counts = dict.fromkeys(floor, 0.0), dict.fromkeys(floor, 0)
        for i, values in enumerate(series.values):
            if not len(origins[i]):
                continue
            ahead = origins[i][:, None] + np.arange(1, config.horizon + 1)
            std = scaling_of(series, i)[0].std
            for name, steps in floor.items():
                found = floors.seasonal(values, origins[i], config.horizon, steps)
                away = np.abs(values[ahead] - found) / std
                totals[name] += float(np.nansum(away))
                counts[name] += int(np.isfinite(away).sum())
        return {name: totals[name] / max(counts[name], 1) for name in floor}

    # ---------------------------------------------------------------------------- predictions

    def predict(self, net: Forecaster, batch: dict[str, Array], carries: Any) -> tuple[dict, Any]:
        """The forecast, and the ends of its interval, in the data's own units: (B, P, H, K)."""
        found = net.forecasts(batch)
        mean, std = batch["scale"][:, None, None, :, 0], batch["scale"][:, None, None, :, 1]
        low, high = net.interval(found, COVERAGE)
        names = {"forecast": net.center(found), "low": low, "high": high}
        return {name: jnp.swapaxes(a, 0, 1) * std + mean for name, a in names.items()}, carries

    def function(self, config: ConfigDict, spec: dict) -> Function:
        return exported(config, spec)

    def unseen(self, config: ConfigDict, spec: dict, path: str) -> Unseen:
        """The H steps after the last known one, of every series."""
        series, notes, warnings = table.read_new(own_file(path), like=spec["table"])
        if config.separate:
            series = separated(series)
        series, origins = prolonged(series, spec["horizon"])
        several = len(series.names) > 1

        def rows(batch: dict, found: dict) -> list[dict]:
            return [
                {"row": (int(s), h, k)}
                | ({"series": series.names[s]} if several else {})
                | {
                    "time": series.times[s][origins[s][0] + h + 1],
                    "step": h + 1,
                    "target": series.targets[k],
                    **{
                        name: float(found[name][row, p, h, k])
                        for name in ("forecast", "low", "high")
                    },
                }
                for row, p in np.argwhere(batch["weight"] > 0)
                for s in [batch["series"][row]]
                for h in range(spec["horizon"])
                for k in range(len(series.targets))
            ]

        batches = windows(config, spec, series, origins, spec["horizon"])
        return Unseen(batches, rows, [*notes, *(f"warning: {line}" for line in warnings)])


# ------------------------------------------------------------------------------------- helpers


def columns(text: str) -> tuple[str, ...]:
    """The names in a config field: separated by commas."""
    return tuple(filter(None, map(str.strip, text.split(","))))


def source(config: ConfigDict, say: Callable[[str], None]) -> tuple[dict[str, Path], dict]:
    """The files of config.corpus, `train` and perhaps `test`, and how a table of them is read."""
    if sets.known(config.corpus):
        files = sets.find(config.corpus, config.data_dir, say)
    else:
        files = {"train": own_file(config.corpus)}
        if config.test_corpus:
            files["test"] = own_file(config.test_corpus)
    options = {
        "time": config.time,
        "target": columns(config.target),
        "group": config.group,
        "covariates": columns(config.covariates),
        "known": columns(config.known),
        "layout": config.layout,
    }
    return files, options


def own_file(name: str) -> Path:
    """A file of the user's own. Raises UserError when there is none."""
    path = Path(name).expanduser()
    if not path.is_file():
        problem = "is not a file" if path.exists() else "is neither a set nor a file"
        raise UserError(f"{name!r} {problem}: name a file, or {', '.join(sets.NAMES)}")
    return path


def places(config: ConfigDict) -> tuple[dict[str, str], tuple[str, ...]]:
    """The config fields that say where own files lie, as absolute paths; and their names."""
    if sets.known(config.corpus):
        return {}, ()
    found = {
        name: str(Path(config[name]).expanduser().resolve())
        for name in ("corpus", "test_corpus")
        if config[name]
    }
    return found, tuple(found)


def scaling_of(series: Series, i: int) -> tuple[Scaling, Scaling, Scaling]:
    """Of the i-th series' targets, covariates and what is known ahead, from its training part."""
    end = series.ends[i][0]
    return tuple(Scaling.of(a[i][:end]) for a in (series.values, series.covariates, series.ahead))


def shortened(series: Series, fraction: float) -> Series:
    """The series with only the last fraction of their training parts."""
    if fraction == 1:
        return series
    drop = [int(end - max(round(end * fraction), 2)) for end in series.ends[:, 0]]
    cut = {
        name: [a[d:] for a, d in zip(getattr(series, name), drop, strict=True)]
        for name in ("values", "covariates", "ahead", "times")
    }
    return series._replace(ends=series.ends - np.array(drop)[:, None], **cut)


def separated(series: Series) -> Series:
    """Every target column as a series of its own, named after it."""
    pairs = [(i, k) for i in range(len(series.names)) for k in range(len(series.targets))]
    if len(series.targets) == 1:
        return series

    def named(i: int, k: int) -> str:
        return " ".join(filter(None, (series.names[i], series.targets[k])))

    return series._replace(
        names=tuple(named(i, k) for i, k in pairs),
        targets=("value",),
        values=[series.values[i][:, k : k + 1] for i, k in pairs],
        covariates=[series.covariates[i] for i, _ in pairs],
        ahead=[series.ahead[i] for i, _ in pairs],
        times=[series.times[i] for i, _ in pairs],
        ends=series.ends[[i for i, _ in pairs]],
    )


def first(origins: list[np.ndarray], count: int) -> list[np.ndarray]:
    """The first so many origins; all of them for 0."""
    if not count:
        return origins
    before = np.cumsum([0, *map(len, origins)])
    return [o[: max(count - b, 0)] for o, b in zip(origins, before, strict=False)]


def _scored(config: ConfigDict, series: Series, split: str) -> list[np.ndarray]:
    """The origins of a split that are scored, of every series."""
    origins = origins_of(series, PARTS[split], config.horizon)
    return first([o[:: config.stride] for o in origins], config.eval_tokens)


def _any_value(series: Series, origins: list[np.ndarray], horizon: int) -> bool:
    """Whether a target is known at any step that is forecast from these origins."""
    for values, own in zip(series.values, origins, strict=True):
        known = np.append(0, np.cumsum(np.isfinite(values).any(axis=1)))
        if (known[own + horizon + 1] > known[own + 1]).any():
            return True
    return False


def windows(
    config: ConfigDict,
    spec: dict,
    series: Series,
    origins: list[np.ndarray],
    horizon: int,
    rows: slice = slice(None),
    train: bool = False,
) -> SeriesWindows:
    """Batches of windows, scaled as in training."""
    known = {name: i for i, name in enumerate(spec["names"])}
    scaling = [
        tuple(map(Scaling.from_json, spec["scaling"][known[name]]))
        if name in known
        else scaling_of(series, i)
        for i, name in enumerate(series.names)
    ]
    return SeriesWindows(
        series,
        scaling,
        origins,
        config.batch_size,
        config.num_steps,
        config.warmup,
        horizon,
        rows,
        seed=config.seed,
        shuffle=train,
    )
