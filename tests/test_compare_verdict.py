"""Answers and sentences; the control and a planted gain, found again and again."""

import json
import math

import numpy as np
import pytest

from rnnx.compare import verdict
from rnnx.report import significance
from rnnx.report.significance import Comparison, Losses


def constant(score: float, seeds: int = 6, items: int = 40) -> Losses:
    return Losses(np.full((seeds, items), score), np.ones(items), np.arange(items))


def networks(**scores: float) -> tuple[dict[str, Losses], dict[str, float]]:
    names = {name.replace("_", "-"): score for name, score in scores.items()}
    return {name: constant(score) for name, score in names.items()}, names


def repeated(seed: int, gain: float) -> tuple[Losses, Losses]:
    """Two networks of 6 seeds that differ by 1.5 %, on 60 windows in blocks of 6.

    A window's difficulty is shared; a seed's error on it differs by 20 %.
    """
    rng = np.random.default_rng(seed)
    hard, both = rng.gamma(2.0, 1.0, 60), []
    for level in (1 - gain, 1.0):
        seeds = 1 + 0.015 * rng.normal(size=(6, 1))
        total = level * hard * seeds * np.exp(0.2 * rng.normal(size=(6, 60)))
        both.append(Losses(total, np.ones(60), np.arange(60) // 6))
    return both[0], both[1]


def test_the_control_is_no_difference_and_a_planted_gain_is_found():
    controls = [verdict.control(*repeated(i, 0.0), "MAE")["answer"] for i in range(20)]
    assert controls.count("no difference") >= 18
    found = []
    for i in range(20):
        model, reference = repeated(100 + i, 0.1)
        losses = {"LSTM": reference, "MI-LSTM": model}
        found += verdict.verdicts(losses, dict.fromkeys(losses, 1.0), {}, "MAE")
    assert [row["answer"] for row in found].count("worth it") >= 16


def test_the_three_answers():
    def answered(low: float, high: float, p: float, p_sign: float, seeds=6, blocks=9) -> str:
        return verdict.answer(Comparison(0, low, high, 0, p_sign, seeds, blocks), p, 0.02)

    assert answered(-0.09, -0.03, 0.05, 0.05) == "worth it"
    assert answered(-0.09, -0.02, 0.01, 0.03) == "undecided"
    assert answered(-0.09, -0.03, 0.06, 0.03) == "undecided"
    assert answered(-0.09, -0.03, 0.01, 0.0625) == "undecided"
    assert answered(-0.02, 0.03, 0.3, 0.3) == "undecided"
    assert answered(-0.019, -0.01, 0.01, 0.03) == "not worth it"
    assert answered(0.1, 0.2, 0.01, 0.03) == "not worth it"
    for few in ({"seeds": 1}, {"blocks": 1}):
        assert answered(-0.09, -0.03, 0.01, 0.03, **few) == "undecided"
        assert answered(0.1, 0.2, 0.01, 0.03, **few) == "undecided"


def test_who_is_compared_with_whom():
    losses, valid = networks(
        LSTM=1, GRU=1, minGRU=1, MI_LSTM=0.9, MI_GRU=0.8, RHN_2=0.7, RHN_5=0.75, MI_RHN_5=0.85
    )
    rows = verdict.verdicts(losses, valid, {}, "MAE")
    assert [(row["question"], row["model"], row["against"]) for row in rows] == [
        (verdict.MI, "MI-LSTM", "LSTM"),
        (verdict.MI, "MI-GRU", "GRU"),
        (verdict.MI, "MI-RHN-5", "RHN-5"),
        (verdict.MI, "MI-GRU", "LSTM"),
        (verdict.RHN, "RHN-2", "LSTM"),
        (verdict.OTHERS, "GRU", "LSTM"),
        (verdict.OTHERS, "minGRU", "LSTM"),
    ]
    # the best are those of the valid part, whatever the test part says
    other = {**valid, "MI-LSTM": 0.1, "RHN-5": 0.1, "RHN-2": math.nan}
    rows = verdict.verdicts(losses, other, {}, "MAE")
    assert [(row["model"], row["against"]) for row in rows][:4] == [
        ("MI-LSTM", "LSTM"),
        ("MI-GRU", "GRU"),
        ("MI-RHN-5", "RHN-5"),
        ("RHN-5", "LSTM"),
    ]
    assert ", the best RHN on the valid part, is" in rows[3]["sentence"]
    losses.pop("LSTM")
    assert len(verdict.verdicts(losses, valid, {}, "MAE")) == 2
    assert verdict.verdicts({}, {}, {}, "MAE") == []


def sentence(monkeypatch, comparison: tuple, floors: dict | None = None, seeds: int = 6) -> str:
    c = Comparison(*comparison)
    monkeypatch.setattr(significance, "compare", lambda *_: c)
    losses = {"LSTM": constant(2.0, seeds), "MI-LSTM": constant(1.5, seeds)}
    (row,) = verdict.verdicts(losses, {"LSTM": 1.0, "MI-LSTM": 1.0}, floors or {}, "MAE")
    return row["sentence"]


def test_sentences(monkeypatch):
    assert sentence(monkeypatch, (-0.061, -0.083, -0.04, 0.001, 0.03125, 6, 30)) == (
        "MI-LSTM is worth it: its MAE is 6.1 % lower than the LSTM's "
        "(95 % interval 4.0 to 8.3 % lower, p = .031)."
    )
    assert sentence(monkeypatch, (0.004, -0.009, 0.015, 0.5, 0.6, 6, 30)) == (
        "MI-LSTM is not worth it: its MAE is 0.4 % higher than the LSTM's "
        "(95 % interval 0.9 % lower to 1.5 % higher, p = .600), which rules out a gain of 2 %."
    )
    assert sentence(monkeypatch, (0.04, 0.03, 0.05, 0.0002, 0.0004, 12, 30), seeds=12) == (
        "MI-LSTM is not worth it: its MAE is 4.0 % higher than the LSTM's "
        "(95 % interval 3.0 to 5.0 % higher, p < .001), which rules out a gain of 2 %."
    )
    unsure = "Whether MI-LSTM is worth it is undecided: its MAE is 4.0 % lower than the LSTM's "
    assert sentence(monkeypatch, (-0.04, -0.09, 0.01, 0.12, 0.09, 6, 30)) == (
        unsure + "(95 % interval 9.0 % lower to 1.0 % higher, p = .120), "
        "so a gain of 2 % is neither shown nor ruled out."
    )
    for comparison, reason in (
        ((0.01, 0.0625, 5, 30), "but it takes 6 seeds to tell, and there are 5."),
        ((0.01, 1.0, 1, 30), "but one seed can't tell."),
        ((0.01, 0.03, 6, 1), "but the test part is too short to tell."),
        ((0.06, 0.03, 6, 30), "but chance could explain that."),
    ):
        c = (-0.04, -0.05, -0.03, *comparison)
        assert sentence(monkeypatch, c, seeds=comparison[2]).endswith(f"), {reason}")


def test_a_sentence_says_that_a_floor_is_better_and_that_seeds_diverged(monkeypatch):
    win = (-0.061, -0.083, -0.04, 0.001, 0.03125, 6, 30)
    floors = {"last value": 9.0, "ridge on lags": 1.23456, "season": 1.4}
    assert sentence(monkeypatch, win, floors).endswith(
        ", p = .031); yet a floor, ridge on lags, is better (MAE 1.235 against 1.5)."
    )
    assert "floor" not in sentence(monkeypatch, win, {"season": 1.51})
    assert "p = .031; 2 of 8 seeds diverged and are left out)." in sentence(
        monkeypatch, win, seeds=8
    )
    assert verdict.behind_floor(1.3, floors) == "ridge on lags"
    assert verdict.behind_floor(1.2, floors) is None
    assert verdict.behind_floor(1.2, {}) is None


def test_holm_is_over_all_comparisons():
    model, reference = repeated(0, 0.1)
    two = {"LSTM": reference, "MI-LSTM": model}
    many = two | {f"cell {i}": reference for i in range(9)}
    for losses, factor in ((two, 1), (many, 10)):
        row = verdict.verdicts(losses, dict.fromkeys(losses, 1.0), {}, "MAE", horizon=6)[0]
        assert row["p_holm"] == pytest.approx(factor * row["p"])
        assert row["p_dm"] == significance.diebold_mariano(model, reference, 6).p


def test_answers_and_sentences_are_by_the_corrected_p(monkeypatch):
    found = Comparison(-0.05, -0.08, -0.03, 0.03, 0.03125, 6, 30)
    monkeypatch.setattr(significance, "compare", lambda *_: found)
    losses, scores = networks(LSTM=1.0, MI_LSTM=0.95, GRU=0.95, minGRU=0.95)
    rows = verdict.verdicts(losses, scores, {}, "MAE")
    assert [row["answer"] for row in rows] == ["undecided"] * 3
    assert all("p = .090" in row["sentence"] for row in rows)
    (row,) = verdict.verdicts(dict(list(losses.items())[:2]), scores, {}, "MAE")
    assert row["answer"] == "worth it" and "p = .031" in row["sentence"]


def test_rows_are_json_even_where_nothing_was_measured():
    model, reference = repeated(0, 0.1)
    losses = {"LSTM": reference, "MI-LSTM": model._replace(total=model.total * np.nan)}
    rows = verdict.verdicts(losses, {"LSTM": 1.0, "MI-LSTM": math.nan}, {"mean": 1.0}, "MAE")
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[0]["answer"] == "undecided"
    assert rows[0]["interval"] is rows[0]["difference"] is rows[0]["p_dm"] is None
    assert rows[0]["sentence"] == ("Whether MI-LSTM is worth it is undecided: every seed diverged.")
    assert set(rows[0]) == {
        *("question", "model", "against", "difference", "interval", "p", "p_sign", "p_holm"),
        *("p_dm", "answer", "sentence", "equal"),
    }
    row = verdict.control(losses["MI-LSTM"], reference, "MAE")
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert row["answer"] == "no difference"


def test_control_by_its_rule(monkeypatch):
    def control(*comparison) -> dict:
        monkeypatch.setattr(significance, "compare", lambda *_: Comparison(*comparison))
        return verdict.control(constant(1.0), constant(1.0), "MAE")

    row = control(0.003, -0.01, 0.02, 0.5, 0.6, 6, 30)
    assert row["answer"] == "no difference"
    assert row["sentence"] == (
        "LSTM against LSTM with other seeds shows no difference: its MAE is 0.3 % higher "
        "(95 % interval 1.0 % lower to 2.0 % higher, p = .600)."
    )
    assert control(0.03, 0.01, 0.05, 0.01, 0.0625, 5, 30)["answer"] == "no difference"
    assert control(0.03, -0.01, 0.05, 0.06, 0.03, 6, 30)["answer"] == "no difference"
    row = control(-0.03, -0.05, -0.01, 0.01, 0.03125, 6, 30)
    assert row["answer"] == "a difference"
    assert row["sentence"].endswith(
        "a verdict about a difference of this size is not to be trusted."
    )


def test_good_enough_is_by_the_interval():
    """Of equal means, but with the noise of seeds, it can't be said that the cheaper one is."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 6, 1)) * 0.05
    noise -= noise.mean(axis=1, keepdims=True)
    losses = {
        name: Losses(np.ones((6, 40)) + own, np.ones(40), np.arange(40))
        for name, own in zip(("LSTM", "GRU"), noise, strict=True)
    }
    cost = {"LSTM": 9.0, "GRU": 1.0}
    given = losses, {"LSTM": 0.9, "GRU": 1.0}, {}, cost, cost, "MAE"
    high = significance.compare(losses["GRU"], losses["LSTM"]).high
    assert 0.02 < high < 0.2
    assert verdict.cheapest(*given)["model"] == "LSTM"
    loose = verdict.cheapest(*given, margin=0.2)
    assert loose["model"] == "GRU" and f"at most {100 * high:.1f} % above" in loose["why"]


def test_one_seed_or_one_block_shows_no_network_to_be_good_enough():
    cost = {"LSTM": 9.0, "GRU": 1.0}
    few = [constant(1.0, seeds=1), constant(1.0)._replace(block=np.zeros(40, int)), constant(1.0)]
    found = [
        verdict.cheapest(
            {"LSTM": each, "GRU": each}, {"LSTM": 0.9, "GRU": 1.0}, {}, cost, cost, "MAE"
        )["model"]
        for each in few
    ]
    assert found == ["LSTM", "LSTM", "GRU"]


def test_the_cheapest_that_is_good_enough():
    losses, valid = networks(LSTM=1.015, GRU=1.03, MI_LSTM=1.0, RHN=1.01)
    latency = {"LSTM": 14.1, "GRU": 9.0, "MI-LSTM": 30.0, "RHN": 13.9}
    seconds = {"LSTM": 5.0, "GRU": 1.0, "MI-LSTM": 9.0, "RHN": 8.0}

    def chosen(floors: dict | None = None, **changes) -> dict | None:
        given = {"losses": losses, "valid": valid, "latency": latency, "seconds": seconds}
        return verdict.cheapest(**{**given, **changes}, floors=floors or {}, metric="MAE")

    # GRU is 3 % off; the latencies of LSTM and RHN agree in two digits, and LSTM trains faster
    assert chosen() == {
        "model": "LSTM",
        "why": "LSTM is the cheapest that is good enough: its MAE is at most 1.5 % above that of "
        "MI-LSTM, the best on the valid part.",
    }
    assert chosen(latency=latency | {"LSTM": 15.1})["model"] == "RHN"
    assert chosen(latency={"MI-LSTM": 30.0})["why"] == (
        "MI-LSTM is the best network on the valid part, and none that is as good is cheaper."
    )
    assert chosen(valid=valid | {"GRU": 0.1}, latency={"GRU": 1.0})["model"] == "GRU"
    assert chosen({"mean": 0.5})["why"].endswith(
        "; yet a floor, mean, is better (MAE 0.5 against 1.015)."
    )
    alone = {"LSTM": losses["LSTM"], "GRU": losses["GRU"]}
    assert chosen(losses=alone, margin=0.01)["why"] == (
        "LSTM is the best network on the valid part, and no other is shown to be within 1 % of it."
    )
    broken = constant(1.0)
    broken.total[3, 3] = np.nan
    assert chosen(losses=losses | {"MI-LSTM": broken})["model"] != "MI-LSTM"
    assert chosen(losses={"MI-LSTM": broken}) is None
