"""The forecasting network against single steps by hand; floors; causality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from series_made import made, scalings

from rnnx import model
from rnnx.cells import Cell
from rnnx.data.batches import Batch
from rnnx.data.series import Scaling, SeriesWindows
from rnnx.tasks import floors
from rnnx.tasks.forecaster import Columns, Forecaster

STEPS, WARMUP, HORIZON, LEVELS = 9, 4, 4, (0.2, 0.5, 0.7)
KINDS = [
    {"season": 0},
    {"season": 1, "given": 1},
    {"season": 3, "levels": LEVELS},
    {"season": 3, "given": 2, "local": True},
    {"season": 0, "recursive": True},
    {"season": 1, "recursive": True, "levels": LEVELS, "given": 1},
    {"season": 3, "recursive": True, "given": 2, "local": True},
]


def network(cell: str = "lstm", **kind) -> Forecaster:
    """K = 2 targets, a covariate, and two columns known ahead."""
    options = {"levels": (), "recursive": False, "local": False} | kind
    columns = Columns(2, 1, 2, options.pop("given", 0))
    return Forecaster(
        Cell(cell), columns, 5, horizon=HORIZON, warmup=WARMUP, init_scale=0.6,
        rngs=nnx.Rngs(3), **options,
    )  # fmt: skip


def batch_of(length: int = 26, seed: int = 0, gaps: float = 0.1) -> Batch:
    """All origins of a series from row 4 on."""
    series = made(length, known=2, gaps=gaps, seed=seed)
    origins = [np.arange(WARMUP, length - HORIZON)]
    return whole(SeriesWindows(series, scalings(series), origins, 4, STEPS, WARMUP, HORIZON,
                               shuffle=False))  # fmt: skip


def whole(batches: SeriesWindows) -> Batch:
    """The only batch."""
    (batch,) = batches
    return batch


def forecasts(net: Forecaster, batch: Batch) -> np.ndarray:
    graphdef, params = model.split(net)
    return np.array(
        jax.jit(lambda p, b: model.merge(graphdef, p).forecasts(b))(params, batch), np.float64
    )


def by_hand(net: Forecaster, row: dict[str, np.ndarray], step) -> np.ndarray:
    """Forecasts (P, H, K, R) of one row, a step and an origin at a time, by NumPy."""
    weights, bias = np.array(net.output_weights[...]), np.array(net.output_bias[...])
    given, ahead = net.columns.given, row["ahead"]
    targets, rest = row["inputs"][:, :2].astype(np.float64), row["inputs"][:, 2:]
    level, spread = np.zeros(2), np.ones(2)
    if net.local:
        level = targets[:WARMUP].mean(axis=0)
        spread = np.maximum(targets[:WARMUP].std(axis=0), 0.1)
    targets = (targets - level) / spread

    def read(values, others, t, carries):
        later = [ahead[t + h, :given] for h in range(1, net.steps + 1)]
        x = np.concatenate([values, others, *later]).astype(np.float32)
        ys, carries = step(x[None, None], carries)
        out = np.array(ys)[0, 0] @ weights + bias
        return out.reshape(net.steps, 2, -1).astype(np.float64), carries

    found = []
    for origin in range(WARMUP, STEPS):
        carries, known = net.stack.zero_carry(1), list(targets[: origin + 1])
        for t in range(origin + 1):
            out, carries = read(targets[t], rest[t], t, carries)
        outs = []
        for h in range(1, HORIZON + 1):
            if net.recursive:
                one = out[0].copy()
                if net.season:
                    one[:, : len(net.levels) or 1] += known[-net.season][:, None]
                value = np.sort(one, axis=-1)[:, 1] if net.levels else one[:, 0]
                known.append(value)
                if h < HORIZON:
                    others = np.concatenate([rest[origin, :1], ahead[origin + h]])
                    out, carries = read(value, others, origin + h, carries)
            else:
                one = out[h - 1].copy()
                if net.season:
                    at = origin + h
                    while at > origin:
                        at -= net.season
                    one[:, : len(net.levels) or 1] += targets[at][:, None]
            if net.levels:
                one = one * spread[:, None] + level[:, None]
            else:
                one = np.stack([one[:, 0] * spread + level, one[:, 1] + np.log(spread)], axis=-1)
            outs.append(one)
        found.append(outs)
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: "-".join(k))
def test_forecasts_are_those_by_hand(kind: dict) -> None:
    net, batch = network(**kind), batch_of()
    found = forecasts(net, batch)
    assert found.shape == (STEPS - WARMUP, 4, HORIZON, 2, len(net.levels) or 2)
    step = jax.jit(net.outputs)
    for b in (0, 2):
        row = {name: np.asarray(a[b]) for name, a in batch.items()}
        np.testing.assert_allclose(found[:, b], by_hand(net, row, step), rtol=2e-4, atol=2e-5)


def test_a_recursive_network_learns_the_next_step_only() -> None:
    """With targets for one step its forecast is the first of a rollout."""
    net, batch = network(season=3, recursive=True, given=1), batch_of()
    short = batch | {"values": batch["values"][:, : STEPS + 1]}
    once = forecasts(net, short)
    assert once.shape[2] == 1
    np.testing.assert_allclose(once[:, :, 0], forecasts(net, batch)[:, :, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recursive", [False, True])
def test_recursion_needs_no_columns_but_the_target(recursive: bool) -> None:
    series = made(20, targets=1, past=0, known=0)
    batch = whole(SeriesWindows(series, scalings(series), [np.array([12])], 1, STEPS, WARMUP,
                                HORIZON, shuffle=False))  # fmt: skip
    net = Forecaster(Cell("gru"), Columns(1, 0, 0, 0), 3, horizon=HORIZON, warmup=WARMUP, season=1,
                     levels=(), recursive=recursive, local=False, rngs=nnx.Rngs(0))  # fmt: skip
    assert np.isfinite(forecasts(net, batch)).all()


# ---------------------------------------------------------------------------- floors


@pytest.mark.parametrize(
    "season, local, recursive",
    [(0, 0, 0), (1, 0, 0), (3, 0, 0), (1, 0, 1), (3, 0, 1), (0, 1, 0), (3, 1, 1)],
)
def test_without_output_weights_a_forecast_is_its_anchor(
    season: int, local: int, recursive: int
) -> None:
    """To the last bit: what the network learns is the change from it."""
    series = made(26, targets=2, known=2)
    series.values[0][:] = np.random.default_rng(1).integers(-8, 9, (26, 2))
    plain = [(Scaling(np.zeros(2), np.ones(2)), *scalings(series)[0][1:])]
    origins = np.arange(WARMUP, 26 - HORIZON)
    batch = whole(SeriesWindows(series, plain, [origins], 4, STEPS, WARMUP, HORIZON, shuffle=False))
    net = network(season=season, recursive=bool(recursive), local=bool(local))
    net.output_weights[...] = jnp.zeros_like(net.output_weights[...])
    net.output_bias[...] = jnp.zeros_like(net.output_bias[...])
    found = np.swapaxes(forecasts(net, batch)[..., 0], 0, 1)[batch["weight"] > 0]
    if season:
        expected = floors.seasonal(series.values[0], origins, HORIZON, season)
        if season == 1:
            np.testing.assert_array_equal(
                expected, floors.last_value(series.values[0], origins, HORIZON)
            )
    else:  # 0 as the network sees it: the mean, of the warm-up or of the training part
        mean = local * batch["inputs"][:, :WARMUP, :2].mean(axis=1)[:, None, None]
        expected = np.broadcast_to(mean, (4, STEPS - WARMUP, HORIZON, 2))[batch["weight"] > 0]
    if local:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(found, expected)


# ---------------------------------------------------------------------------- causality


@pytest.mark.parametrize(
    "kind",
    [
        {"season": 3, "given": 2, "local": True},
        {"season": 1, "given": 1, "recursive": True, "levels": LEVELS},
    ],
    ids=["direct", "recursive"],
)
def test_a_value_after_an_origin_changes_no_bit_of_its_forecast(kind: dict) -> None:
    """Values and covariates; also where the first values are missing."""
    net = network(**kind)
    graphdef, params = model.split(net)
    run = jax.jit(lambda b: model.merge(graphdef, params).forecasts(b))
    length = 26
    series, other = made(length, known=2, gaps=0.3), made(length, known=2, gaps=0.3, seed=1)
    series.values[0][:9, 0] = np.nan
    series.ends[0] = 15, 20
    scaling, origins = scalings(series), np.arange(0, length - HORIZON)

    def of(changed):
        batch = whole(SeriesWindows(changed, scaling, [origins], 5, STEPS, WARMUP, HORIZON,
                                    shuffle=False))  # fmt: skip
        return np.swapaxes(np.array(run(batch)), 0, 1)[batch["weight"] > 0]

    before = of(series)
    assert np.isfinite(before).all()
    for origin in (0, 3, 8, 13, 20):
        after = of(
            series._replace(
                values=[np.r_[series.values[0][: origin + 1], other.values[0][origin + 1 :]]],
                covariates=[
                    np.r_[series.covariates[0][: origin + 1], other.covariates[0][origin + 1 :]]
                ],
            )
        )
        np.testing.assert_array_equal(after[: origin + 1], before[: origin + 1])
        assert not np.array_equal(after[origin + 1 :], before[origin + 1 :])


def test_the_interval_of_quantiles_that_cross_is_sorted() -> None:
    net = network(season=0, levels=LEVELS)
    assert tuple(map(float, net.interval(jnp.array([3.0, 1.0, 2.0]), 0.8))) == (1.0, 3.0)
