"""Intervals and tests: against their definitions, scipy, and repeated worlds of known truth."""

import itertools
import time

import numpy as np
import pytest
from scipy import stats

from rnnx.report import significance
from rnnx.report.significance import Losses, compare


def world(
    seed: int,
    gain: float = 0.0,
    seeds: int = 6,
    blocks: int = 30,
    own: float = 0.3,
    cross: float = 0.0,
    root: bool = False,
) -> tuple[Losses, Losses]:
    """A model that is better by `gain`, and its reference, on 10 items a block.

    Items differ in difficulty, seeds by 1.5 %, each seed on each item by `own`; and, where
    `cross` is set, the models on each block, the same for all seeds.
    """
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(blocks), 10)
    hard = rng.gamma(1.0, 1.0, len(block)) * np.exp(0.3 * rng.normal(size=blocks))[block]
    both = []
    for level in (1 - gain, 1.0):
        total = hard * level * (1 + 0.015 * rng.normal(size=(seeds, 1)))
        total *= np.exp(own * rng.normal(size=total.shape) - own**2 / 2)
        total *= (1 + cross * rng.normal(size=blocks))[block]
        both.append(Losses(total**2 if root else total, np.ones(len(block)), block, root))
    return both[0], both[1]


def covered(repetitions: int, gain: float = 0.0, **options) -> float:
    """The share of intervals that hold the truth."""
    found = [compare(*world(i, gain, **options), 500, i) for i in range(repetitions)]
    return float(np.mean([c.low <= -gain <= c.high for c in found]))


def test_score_is_a_ratio_of_sums_or_its_root():
    total = np.array([[1.0, 8.0], [3.0, 33.0], [np.nan, 1.0], [np.inf, 1.0]])
    losses = Losses(total, np.array([1.0, 3.0]), np.arange(2))
    np.testing.assert_array_equal(significance.scores(losses), [2.25, 9.0, np.nan, np.nan])
    np.testing.assert_array_equal(
        significance.scores(losses._replace(root=True)), [1.5, 3.0, np.nan, np.nan]
    )


@pytest.mark.parametrize(
    "options",
    [
        {},  # the noise of a seed on an item decides
        {"own": 0.02},  # the seeds decide
        {"cross": 0.1, "blocks": 6},  # few blocks decide
        {"seeds": 3, "own": 0.05},
        {"root": True, "gain": 0.1},
    ],
    ids=str,
)
def test_intervals_hold_the_truth_as_often_as_they_say(options):
    """93.5 to 97.7 in 2,000 repetitions; 600 have a standard error of 1."""
    assert 0.92 <= covered(600, **options) <= 0.99


def test_interval_of_a_score():
    rng = np.random.default_rng(0)
    items, level = rng.normal(10, 2, 400), rng.normal(0, 0.5, 20)
    losses = Losses(items + level[:, None], np.ones(400), np.arange(400))
    low, high = significance.interval(losses)
    error = np.hypot(items.std(ddof=1) / 20, level.std(ddof=1) / np.sqrt(20))
    half = error * stats.t.ppf(0.975, 19)
    assert (low + high) / 2 == pytest.approx(significance.scores(losses).mean(), abs=0.02)
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    one = significance.interval(losses._replace(total=losses.total[:1]))
    assert one[1] - one[0] == pytest.approx(2 * 1.966 * items.std(ddof=1) / 20, rel=0.05)


def test_equal_runs_are_equal_and_pairs_are_sharp():
    model, reference = world(1, 0.1, own=0.05)
    assert compare(model, reference) == compare(model, reference)
    assert compare(model, reference, seed=1) != compare(model, reference)
    alike = compare(model, reference)
    low, high = significance.interval(reference)
    assert (high - low) / significance.scores(reference).mean() > 5 * (alike.high - alike.low)


def test_items_of_a_block_go_together():
    model, reference = world(2, cross=0.2, own=0.05)
    alone = np.arange(300)
    together = compare(model, reference)
    apart = compare(model._replace(block=alone), reference._replace(block=alone))
    assert (together.blocks, apart.blocks) == (30, 300)
    assert together.high - together.low > 1.4 * (apart.high - apart.low)
    # names of blocks don't matter, nor the order of items
    order = np.random.default_rng(0).permutation(300)
    mixed = [
        Losses(each.total[:, order], each.count, each.block[order] * 7 - 3)
        for each in (model, reference)
    ]
    assert compare(*mixed) == pytest.approx(together)


def test_many_blocks_are_merged_and_a_million_items_take_seconds():
    model, reference = world(3, blocks=3000, own=1.0)
    merged = compare(model, reference)
    assert merged.blocks == 1000
    half = (merged.high - merged.low) / 2
    assert half == pytest.approx(half_width(model, reference), rel=0.4)

    rng = np.random.default_rng(0)
    large = Losses(rng.random((2, 1_000_000)), np.ones(1_000_000), np.arange(1_000_000))
    start = time.perf_counter()
    assert abs(compare(large, large._replace(total=large.total[::-1])).difference) < 1e-9
    assert time.perf_counter() - start < 20


def test_blocks_are_merged_with_their_neighbours():
    items = np.arange(2500.0)
    losses = Losses(items[None], np.ones(2500), np.arange(2500))
    (totals,), counts = significance._by_block([losses.total], losses)
    assert counts[:4].tolist() == [3, 2, 3, 2] and counts.sum() == 2500
    assert totals[0, :4].tolist() == [0 + 1 + 2, 3 + 4, 5 + 6 + 7, 8 + 9]


def half_width(model: Losses, reference: Losses) -> float:
    """Student's interval of the seeds' differences: enough where items share no noise."""
    gaps = significance.scores(model) - significance.scores(reference)
    error = gaps.std(ddof=1) / np.sqrt(len(gaps))
    return stats.t.ppf(0.975, len(gaps) - 1) * error / significance.scores(reference).mean()


def test_p_agrees_with_the_interval():
    for seed in range(30):
        c = compare(*world(seed, 0.02 * (seed % 3)), 2000)
        assert (c.low > 0 or c.high < 0) == (c.p <= 0.05) or abs(c.p - 0.05) < 0.005
    assert compare(*world(0, 0.5)).p == pytest.approx(2 / 10_001)
    same = world(0)[1]
    assert compare(same, same)[:5] == (0, 0, 0, 1, 1)


def test_rare_errors():
    rng = np.random.default_rng(0)
    rare = Losses((rng.random((6, 100)) < 0.01).astype(float), np.ones(100), np.arange(100))
    none = rare._replace(total=np.zeros((6, 100)))
    c = compare(none, rare)
    assert c.difference == -1
    assert np.isfinite([c.low, c.high]).all()
    c = compare(rare, none)
    assert c.difference == 1
    assert np.isfinite([c.low, c.high]).all()
    assert compare(none, none)[:5] == (0, 0, 0, 1, 1)


def test_diverged_seeds_are_left_out_in_pairs():
    model, reference = world(4, 0.1)
    total = model.total.copy()
    total[2, 5], total[4] = np.inf, np.nan
    keep = [0, 1, 3, 5]
    c = compare(model._replace(total=total), reference)
    assert c.seeds == 4
    assert c == compare(
        model._replace(total=model.total[keep]), reference._replace(total=reference.total[keep])
    )
    assert compare(reference, model._replace(total=total)) == compare(
        reference._replace(total=reference.total[keep]), model._replace(total=model.total[keep])
    )
    assert significance.interval(model._replace(total=total)) == significance.interval(
        model._replace(total=model.total[keep])
    )
    nothing = compare(model._replace(total=total * np.nan), reference)
    assert (nothing.seeds, nothing.p) == (0, 1)
    assert np.isnan(nothing.low)


@pytest.mark.parametrize("field", ["total", "count", "block", "root"])
def test_only_equal_items_are_compared(field):
    model, reference = world(5)
    other = {
        "total": model.total[:5],
        "count": model.count * 2,
        "block": model.block + 1,
        "root": True,
    }[field]
    with pytest.raises(ValueError, match="same seeds and test items"):
        compare(model._replace(**{field: other}), reference)
    with pytest.raises(ValueError, match="same seeds and test items"):
        significance.diebold_mariano(model._replace(**{field: other}), reference, 1)


def test_sign_flip_is_exact():
    assert significance.sign_flip(np.array([1.0, 2.0, 3.0])) == 2 / 8
    assert significance.sign_flip(-np.arange(1.0, 6.0)) == 2 / 32
    assert significance.sign_flip(np.arange(1.0, 7.0)) == 2 / 64
    assert significance.sign_flip(np.array([0.1, 0.2, -0.3])) == 1  # the sum is 0 but for rounding
    assert significance.sign_flip(np.zeros(6)) == 1
    for seed in range(40):  # equal sums count, though rounding may tell them apart
        whole = np.random.default_rng(seed).integers(-9, 10, 6)
        assert significance.sign_flip(whole * 0.1) == significance.sign_flip(whole.astype(float))
    d = np.random.default_rng(0).normal(0.5, 1, 9)
    sums = [abs(np.dot(signs, d)) for signs in itertools.product([-1, 1], repeat=9)]
    assert significance.sign_flip(d) == pytest.approx(
        np.mean(np.array(sums) >= abs(d.sum()) - 1e-9)
    )
    many = np.random.default_rng(1).normal(0.3, 1, 40)
    normal = 2 * stats.norm.sf(abs(many.sum()) / np.sqrt((many**2).sum()))
    assert significance.sign_flip(many) == pytest.approx(normal, abs=0.02)
    assert significance.sign_flip(np.arange(1.0, 41.0)) == pytest.approx(1 / 10_000)


def test_holm():
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.6, 0.7]) == [1.0, 1.0]
    assert significance.holm([]) == []


def pair(d: np.ndarray) -> tuple[Losses, Losses]:
    """Losses of two seeds with mean differences d."""
    count = np.full(len(d), 4.0)
    model = Losses(np.stack([d + 0.5, d - 0.5]) * 4 + 8, count, np.arange(len(d)))
    return model, model._replace(total=np.full((2, len(d)), 8.0))


def test_diebold_mariano_one_step_ahead_is_students_test():
    d = np.random.default_rng(0).normal(0.2, 1, 50)
    got = significance.diebold_mariano(*pair(d), 1)
    assert got == pytest.approx(stats.ttest_1samp(d, 0))


def test_diebold_mariano_by_its_definition():
    d = np.random.default_rng(1).normal(0.3, 1, 60)
    d = d[2:] + d[1:-1] + d[:-2]
    n, h, gap = len(d), 3, d - d.mean()
    c = [sum(gap[i] * gap[i - k] for i in range(k, n)) / n for k in range(h)]
    modified = d.mean() / np.sqrt((c[0] + 2 * c[1] + 2 * c[2]) / n)
    modified *= np.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    got = significance.diebold_mariano(*pair(d), h)
    assert got.statistic == pytest.approx(modified)
    assert got.p == pytest.approx(2 * stats.t.sf(abs(modified), n - 1))


def test_diebold_mariano_at_its_edges():
    swing = np.tile([1.0, -1.0], 20) + 0.05  # c_0 + 2 c_1 < 0
    assert 0 < significance.diebold_mariano(*pair(swing), 2).p < 1
    model, reference = pair(np.random.default_rng(0).normal(size=10))
    assert np.isnan(significance.diebold_mariano(model, reference, 10)).all()
    assert np.isnan(significance.diebold_mariano(reference, reference, 2)).all()
    # an item that isn't scored isn't there
    count = np.r_[reference.count[:-1], 0.0]
    shorter = [
        each._replace(total=each.total[:, :9], count=count[:9], block=each.block[:9])
        for each in (model, reference)
    ]
    both = [each._replace(count=count) for each in (model, reference)]
    assert significance.diebold_mariano(*both, 2) == significance.diebold_mariano(*shorter, 2)
