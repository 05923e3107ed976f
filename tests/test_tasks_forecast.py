"""The task forecast: sums, what is refused, baselines, series made of others, training."""

import math
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import train
from data_files import hours, real, write
from series_made import made

from rnnx import config as configs
from rnnx import model, tasks, workdir
from rnnx.data.series import SeriesWindows
from rnnx.errors import UserError
from rnnx.tasks import floors, network
from rnnx.tasks.forecast import first, scaling_of, separated, shortened
from rnnx.tasks.task import Dataset

TASK = tasks.get("forecast")
WHOLE = slice(None)


def config_of(**fields):
    config = configs.default("forecast")
    config.update(
        {
            "cell": "lstm", "hidden_size": 4, "init_scale": 0.3, "batch_size": 8, "num_steps": 12,
            "horizon": 3, "optimizer": "adam", "learning_rate": 0.02, "epochs": 1,
        }
        | fields
    )  # fmt: skip
    return config


def spec_of(series, **fields) -> dict:
    scaling = [[s.to_json() for s in scaling_of(series, i)] for i in range(len(series.names))]
    return {
        "table": {"known": list(series.known)}, "horizon": 3, "season": 4, "names": series.names,
        "targets": series.targets, "past": series.past, "known": series.known, "scaling": scaling,
    } | fields  # fmt: skip


def dataset_of(series) -> Dataset:
    splits = dict.fromkeys(("train", "valid", "test"), series)
    return Dataset("made", splits, spec_of(series), {}, (0, 0, 0))


# ---------------------------------------------------------------------------- sums


@pytest.mark.parametrize("head", ["gaussian", "quantile"])
def test_sums_are_those_by_hand_without_missing_targets(head: str) -> None:
    series = made(40, 33, gaps=0.2)
    dataset = dataset_of(series)
    config = network.resolve(config_of(head=head, levels=(0.1, 0.5, 0.6)), dataset.spec)
    net = network.build(config, dataset.spec)
    graphdef, params = model.split(net)

    def both(params, batch):
        net = model.merge(graphdef, params)
        return TASK.cost(net, batch, (), None), net.forecasts(batch)

    both, kind = jax.jit(both), "nll" if head == "gaussian" else "pinball"
    batches = TASK.batches(config, dataset, "test", "batched", WHOLE)
    (last,) = (batch for batch in batches if (batch["series"] < 0).any())  # filled up
    for batch in (batches[0], last):
        (costs, _, sums), found = both(params, batch)
        found = np.array(found, np.float64)
        by_hand = {"mae": [], "mse": [], kind: []}
        for b, s in enumerate(batch["series"]):
            mine = []
            for p in np.flatnonzero(batch["weight"][b]):
                origin = batch["start"][b] + config.warmup + p
                for h, k in np.ndindex(3, 2):
                    target = scaling_of(series, s)[0].apply(series.values[s][origin + 1 + h])[k]
                    if np.isnan(target):
                        continue
                    out = found[p, b, h, k]
                    if head == "gaussian":
                        m, log_std = out[0], -7 + np.logaddexp(0, out[1] + 7)
                        loss = ((target - m) / np.exp(log_std)) ** 2 / 2 + log_std
                        loss += math.log(2 * math.pi) / 2
                    else:
                        m = np.sort(out)[1]
                        losses = [max(q * (target - o), (q - 1) * (target - o))
                                  for q, o in zip((0.1, 0.5, 0.6), out, strict=True)]  # fmt: skip
                        loss = np.mean(losses)
                    by_hand["mae"].append(abs(target - m))
                    by_hand["mse"].append((target - m) ** 2)
                    mine.append(loss)
            by_hand[kind] += mine
            assert costs[b] == pytest.approx(np.mean(mine) if mine else 0, rel=1e-4, abs=1e-6)
        for name, values in by_hand.items():
            total, count = sums[name]
            assert (total, count) == (pytest.approx(sum(values), rel=1e-4), len(values))


def test_scores_are_over_values_of_the_first_so_many_origins() -> None:
    dataset = dataset_of(made(40, 33))
    counts = {}
    for fields in ({}, {"stride": 3}, {"eval_tokens": 5}):
        config = network.resolve(config_of(**fields), dataset.spec)
        counts[tuple(fields)] = TASK.batches(config, dataset, "test", "full", WHOLE).targets
    assert counts == {(): 6 + 5, ("stride",): 2 + 2, ("eval_tokens",): 5}
    capped = network.resolve(config_of(stride=3, eval_tokens=4), dataset.spec)
    assert TASK.batches(capped, dataset, "train", "train", WHOLE).targets > 20  # all of training
    origins = [np.arange(4), np.arange(3)]
    assert [o.tolist() for o in first(origins, 5)] == [[0, 1, 2, 3], [0]]
    assert first(origins, 0) is origins and [len(o) for o in first(origins, 2)] == [2, 0]


def test_a_recursive_network_trains_on_one_step_and_is_scored_on_all() -> None:
    dataset = dataset_of(made(40))
    config = network.resolve(config_of(decode="recursive"), dataset.spec)
    training = TASK.batches(config, dataset, "train", "train", WHOLE)
    scoring = TASK.batches(config, dataset, "valid", "batched", WHOLE)
    assert training[0]["values"].shape[1] == 12 + 1 and scoring[0]["values"].shape[1] == 12 + 3


def test_windows_of_training_depend_on_the_seed() -> None:
    dataset, found = dataset_of(made(80)), set()
    for seed in (0, 1):
        config = network.resolve(config_of(seed=seed), dataset.spec)
        batches = TASK.batches(config, dataset, "train", "train", WHOLE)
        found.add(np.concatenate([batch["start"] for batch in batches]).tobytes())
    assert len(found) == 2


# ---------------------------------------------------------------------------- refused


def hourly(tmp_path: Path, name: str, rows: slice, gap: slice | None = None) -> str:
    """A file of a random walk, rows of 300."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"at": hours(300), "load": 9 + rng.normal(size=300).cumsum()})
    if gap:
        frame.loc[gap, "load"] = np.nan
    (tmp_path / name).parent.mkdir(exist_ok=True)
    frame[rows].to_csv(tmp_path / name, index=False)
    return str(tmp_path / name)


@pytest.mark.parametrize(
    "part, gap, cap", [("valid", slice(210, 239), 0), ("test", slice(240, 246), 5)]
)
def test_a_part_without_a_value_to_forecast_is_refused(part, gap, cap, tmp_path: Path) -> None:
    corpus = hourly(tmp_path, "gap.csv", WHOLE, gap)
    config = config_of(corpus=corpus, time="at", target="load", season=4, eval_tokens=cap)
    with pytest.raises(UserError, match=f"the {part} part has no value of load to forecast"):
        TASK.load(config, print)


def test_sums_tell_files_of_one_name_and_swapped_parts(tmp_path: Path) -> None:
    fields = {"time": "at", "target": "load", "season": 4, "max_steps": 2}
    first = hourly(tmp_path, "a/data.csv", slice(0, 240))
    second = hourly(tmp_path, "b/data.csv", slice(240, 300))
    config = config_of(corpus=first, test_corpus=second, **fields)
    assert list(TASK.load(config, print).sums) == ["train data.csv", "test data.csv"]
    train(config, tmp_path / "run")
    known = workdir.read_json(tmp_path / "run" / "run.json")["data"]["sums"]
    swapped = dict(zip(known, reversed(known.values()), strict=True))
    with pytest.raises(UserError, match="is not the one"):
        workdir.check_data(tmp_path / "run", "data", swapped)
    hourly(tmp_path, "a/data.csv", slice(1, 240))
    with pytest.raises(UserError, match="is not the one"):
        train(config_of(corpus=first, test_corpus=second, **fields), tmp_path / "run")


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"warmup": 12}, "warmup=12 must be below num_steps=12"),
        ({"num_steps": 1}, "num_steps must be at least 2"),
        ({"head": "quantile", "levels": (0.5, 0.1)}, "levels must ascend"),
        ({"head": "quantile", "levels": (0.5, 1.0)}, "levels must ascend"),
        ({"head": "quantile", "levels": (0.1, 0.9)}, "levels must hold 0.5"),
        ({"head": "quantile", "levels": ("a", 0.5)}, "levels must be numbers"),
        ({"parts": ("a", 0.5)}, "parts must be numbers"),
        ({"fraction": 0.0}, "fraction=0.0 must be above 0"),
        ({"fraction": 1.5}, "fraction=1.5 must be above 0 and at most 1"),
        ({"tied": True}, "no words"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields: dict, told: str) -> None:
    TASK.check(config_of())
    with pytest.raises(UserError, match=told):
        TASK.check(config_of(**fields))


@pytest.mark.parametrize(
    "fields, season, warmup",
    [
        ({}, 4, 4),  # a season
        ({}, 12, "a season of 12 steps does not fit into windows of num_steps=12"),
        ({"anchor": "last"}, 12, 6),  # half of the window
        ({}, 1, 6),
        ({"warmup": 3}, 4, 3),
        ({"warmup": 2}, 4, "warmup=2 must be a season, 4 steps"),
        ({"warmup": 2, "anchor": "last"}, 4, 2),
    ],
)
def test_the_warm_up_reaches_back_a_season(fields: dict, season: int, warmup: int | str) -> None:
    config, spec = config_of(**fields), {"season": season}
    if isinstance(warmup, str):
        with pytest.raises(UserError, match=warmup):
            TASK.at_width(config, spec, 4)
    else:
        found = TASK.at_width(config, spec, 5)
        assert (found.warmup, found.hidden_size, config.hidden_size) == (warmup, 5, 4)


# ---------------------------------------------------------------------------- baselines


@pytest.mark.parametrize("fields", [{}, {"stride": 2}, {"eval_tokens": 4}])
def test_baselines_are_the_floors(fields: dict) -> None:
    series = made(40, 25, gaps=0.1)
    known = TASK.baselines(config_of(**fields), dataset_of(series), "test")
    for name, season in (("last value", 1), ("last season", 4)):
        errors, left = [], fields.get("eval_tokens", 99)
        for i, (values, (_, begin)) in enumerate(zip(series.values, series.ends, strict=True)):
            origins = np.arange(begin - 1, len(values) - 3, fields.get("stride", 1))[:left]
            left -= len(origins)
            found = floors.seasonal(values, origins, 3, season)
            for origin, steps in zip(origins, found, strict=True):
                away = values[origin + 1 : origin + 4] - steps
                errors += (np.abs(away) / scaling_of(series, i)[0].std).ravel().tolist()
        assert known[name] == pytest.approx(np.nanmean(errors))
    dataset = dataset_of(series)
    dataset.spec["season"] = 1
    assert list(TASK.baselines(config_of(), dataset, "valid")) == ["last value"]


def test_floors_of_etth1() -> None:
    """Standard protocol: 12, 4 and 4 months, all columns."""
    folder = real("series/ETTh1.csv").parent
    config = config_of(corpus="etth1", data_dir=str(folder), parts=(8640, 2880, 2880), season=24)
    dataset = TASK.load(config, print)
    assert dataset.spec["targets"] == ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
    for horizon, expected in ((24, (0.671, 0.389)), (96, (0.713, 0.433))):
        config.horizon = horizon
        known = TASK.baselines(config, dataset, "test")
        found = known["last value"], known["last season"]
        assert tuple(round(x, 3) for x in found) == expected


# ---------------------------------------------------------------------------- series of others


def test_every_column_can_be_a_series_of_its_own() -> None:
    series = made(30, 20, gaps=0.1)
    found = separated(series)
    assert found.names == ("s0 y0", "s0 y1", "s1 y0", "s1 y1") and found.targets == ("value",)
    assert separated(made(9)._replace(names=("",))).names == ("y0", "y1")
    for n, (i, k) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        np.testing.assert_array_equal(found.values[n][:, 0], series.values[i][:, k])
        np.testing.assert_array_equal(found.covariates[n], series.covariates[i])
        np.testing.assert_array_equal(found.ahead[n], series.ahead[i])
        assert found.ends[n].tolist() == series.ends[i].tolist()
        (mean,), whole = scaling_of(found, n)[0].mean, scaling_of(series, i)[0].mean
        assert mean == pytest.approx(whole[k], rel=1e-12)
    alone = made(9, targets=1)
    assert separated(alone) is alone


def test_a_fraction_is_the_last_of_the_training_part() -> None:
    series = made(50, 20)
    assert shortened(series, 1.0) is series
    found = shortened(series, 0.25)
    for i, kept in enumerate((8, 3)):  # of 30 and 12 rows
        drop = series.ends[i][0] - kept
        assert found.ends[i].tolist() == (series.ends[i] - drop).tolist()
        for name in ("values", "covariates", "ahead", "times"):
            np.testing.assert_array_equal(getattr(found, name)[i], getattr(series, name)[i][drop:])
    assert shortened(series, 0.001).ends[:, 0].tolist() == [2, 2]


def test_scaling_is_of_the_training_part_alone() -> None:
    series = made(40, gaps=0.1)
    before = scaling_of(series, 0)
    for name in ("values", "covariates", "ahead"):
        getattr(series, name)[0][series.ends[0][0] :] += 100
    for ours, theirs in zip(before, scaling_of(series, 0), strict=True):
        np.testing.assert_array_equal(np.array(ours), np.array(theirs))
    series.values[0][0] += 100
    assert not np.allclose(before[0].mean, scaling_of(series, 0)[0].mean)


# ---------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def sine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wave of hours with noise, with a holiday that is known ahead and one that never comes."""
    t, rng = np.arange(240), np.random.default_rng(0)
    frame = {
        "at": hours(240), "load": 20 + 5 * np.sin(t / 3) + 0.5 * rng.normal(size=240),
        "holiday": (t % 7 == 0).astype(int), "never": 0 * t,
    }  # fmt: skip
    return write(tmp_path_factory.mktemp("sine"), pd.DataFrame(frame))


def test_a_tiny_run_beats_the_mean(sine: Path, tmp_path: Path) -> None:
    config = config_of(
        corpus=str(sine), target="load", known="never,holiday", anchor="none", hidden_size=8,
        season=1, epochs=40,
    )  # fmt: skip
    result = train(config, tmp_path / "run")
    frame = pd.read_csv(sine)["load"]
    mean, std = frame[:168].mean(), frame[:168].std(ddof=0)
    assert result["test"]["values"] == (48 - 2) * 3
    assert result["test"]["mae"] < 0.5 * (frame[192:] - mean).abs().mean() / std


def test_what_a_run_knows_of_its_data(sine: Path) -> None:
    """A column that is left out, as it is constant, is none that a network reads ahead."""
    config = config_of(corpus=str(sine), target="load", known="never,holiday", batch_size=4)
    dataset = TASK.load(config, print)
    assert dataset.sizes == (168 - 3 - 1, 24 - 2, 48 - 2)
    assert dataset.spec["known"][0] == "holiday" and dataset.spec["step"] == "1 hour"
    assert dataset.fields == {"corpus": str(sine.resolve())} and dataset.places == ("corpus",)
    net = network.build(network.resolve(config, dataset.spec), dataset.spec)
    assert net.columns[3] == 1
    assert isinstance(TASK.batches(network.resolve(config, dataset.spec), dataset, "valid", "full",
                                   WHOLE), SeriesWindows)  # fmt: skip
