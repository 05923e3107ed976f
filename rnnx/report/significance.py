"""Is one network better than another, or did the seeds and the test items decide?

Lower is better throughout. Sources: Owen, "The pigeonhole bootstrap" (2007); Holm, "A simple
sequentially rejective multiple test procedure" (1979); Diebold and Mariano, "Comparing predictive
accuracy" (1995); Harvey, Leybourne and Newbold, "Testing the equality of prediction mean squared
errors" (1997).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DRAWS = 10_000  # of a bootstrap
_MOST_BLOCKS = 1000  # drawn one by one; of more, neighbours are merged
_MOST_SIGNS = 12  # seeds up to which all signs are tried
_AT_ONCE = 4_000_000  # numbers in a chunk


class Losses(NamedTuple):
    """What R seeds of a model lose on N test items, in the order of the test part.

        score of a seed = sum of total / sum of count, or its square root

    A seed that diverged has a total that is not finite; it is left out.
    """

    total: np.ndarray  # (R, N) summed loss of each item; row r is seed r of every model
    count: np.ndarray  # (N,) what it is a mean over
    block: np.ndarray  # (N,) ints: items of equal block are resampled together; of a series,
    # neighbouring origins, no fewer than the horizon, whose targets overlap
    root: bool = False  # the score is a square root (RMSE)


class Comparison(NamedTuple):
    """A model against a reference. Differences are relative to the reference: -.1 is 10 % less."""

    difference: float
    low: float  # of the 95 % interval
    high: float
    p: float  # of no difference, two-sided, from the bootstrap
    p_sign: float  # of no difference, two-sided, from the signs of the seeds' differences
    seeds: int  # that neither model diverged on
    blocks: int


class Test(NamedTuple):
    statistic: float
    p: float


def scores(losses: Losses) -> np.ndarray:
    """The score of each seed (R,); NaN where it diverged."""
    means = losses.total.sum(axis=1) / losses.count.sum()
    means = np.where(np.isfinite(means), means, np.nan)
    return np.sqrt(means) if losses.root else means


def interval(losses: Losses, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the score, the mean over seeds: see `compare` for the bootstrap.

    NaN without a finite seed. Of a single seed it covers the test items alone.
    """
    good = np.isfinite(losses.total).all(axis=1)
    if not good.any():
        return math.nan, math.nan
    (totals,), counts = _by_block([losses.total[good]], losses)
    sample = _Bootstrap(len(totals), totals, counts, losses.root, draws, seed)
    drawn = sample.spread(lambda score: score)
    return tuple(float(x) for x in np.quantile(drawn, (0.025, 0.975)))


def compare(model: Losses, reference: Losses, draws: int = DRAWS, seed: int = 0) -> Comparison:
    """The relative difference of two models' scores, paired by seed and by item.

        difference = (score of model - score of reference) / score of reference

    Two-level bootstrap: blocks m and seeds r are drawn with replacement, the same for both
    models. With g the difference, g(m) on the drawn blocks over all seeds, and g(r) on all blocks
    over the drawn seeds,

        draw = g + k (f(B) (g(m) - g) + f(R) (g(r) - g)),   f(n) = sqrt(n / (n - 1)) t(n-1) / z

    t and z are the 97.5 % points of Student's and the normal distribution: as it is, a bootstrap
    of six seeds has 5/6 of the variance that it should have, and normal tails. k < 1 makes up for
    what both levels count, the noise of one seed on one block: its variance e is that of
    g(m, r) - g(m) less that of g(r) - g, and k^2 = (b + s - e) / (b + s), b and s those of the
    levels, with b + s - e no smaller than either. Drawing blocks and seeds at once, the usual
    way, counts it three times. The interval holds draws from 2.5 to 97.5 %; p is twice the share
    of draws on the far side of 0. In simulations the interval holds the truth in 93.5 to 97.7 %.

    Errors can be so rare that a draw has none: draws divide by half the reference's score at
    least. Where the reference makes no error, differences are relative to the model's score.

    More than 1,000 blocks are merged with their neighbours into 1,000.

    Raises:
      ValueError: when the two weren't scored on the same items, or on different numbers of seeds.
    """
    _same_items(model, reference)
    good = np.isfinite(model.total).all(axis=1) & np.isfinite(reference.total).all(axis=1)
    if not good.any():
        return Comparison(math.nan, math.nan, math.nan, 1.0, 1.0, 0, len(set(model.block)))
    totals, counts = _by_block([model.total[good], reference.total[good]], model)
    sample = _Bootstrap(int(good.sum()), np.concatenate(totals), counts, model.root, draws, seed)
    first, second = scores(model)[good], scores(reference)[good]
    mean, base = first.mean(), second.mean()

    def relative(score: np.ndarray, against: np.ndarray) -> np.ndarray:
        return (score - against) / (np.maximum(against, base / 2) if base else mean or 1.0)

    drawn = sample.spread(relative)
    low, high = np.quantile(drawn, (0.025, 0.975))
    tail = 1 + min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Comparison(
        float(relative(mean, base)),
        float(low),
        float(high),
        float(min(1.0, 2 * tail / (draws + 1))),
        sign_flip(first - second),
        int(good.sum()),
        len(counts),
    )


def _same_items(model: Losses, reference: Losses) -> None:
    if (
        model.root != reference.root
        or model.total.shape != reference.total.shape
        or not np.array_equal(model.count, reference.count)
        or not np.array_equal(model.block, reference.block)
    ):
        raise ValueError("models can be compared only on the same seeds and test items")


def _by_block(totals: list[np.ndarray], losses: Losses) -> tuple[list[np.ndarray], np.ndarray]:
    """Sums over each block: of totals (R, N), each (R, B), and of counts (B,)."""
    names, numbers = np.unique(losses.block, return_inverse=True)
    if len(names) > _MOST_BLOCKS:
        numbers = numbers * _MOST_BLOCKS // len(names)
    counts = np.bincount(numbers, losses.count)
    kept = counts > 0
    return [
        np.stack([np.bincount(numbers, row, len(counts))[kept] for row in each]) for each in totals
    ], counts[kept]


class _Bootstrap:
    """Draws of blocks and seeds, applied to the scores of M models at once."""

    def __init__(
        self, seeds: int, totals: np.ndarray, counts: np.ndarray, root: bool, draws: int, seed: int
    ):
        """Takes sums by block, totals (M R, B) and counts (B,)."""
        rng = np.random.default_rng(seed)
        blocks, sums = len(counts), np.vstack([totals, counts]).T
        self.unbiased = tuple(n / max(n - 1, 1) for n in (blocks, seeds))
        self.wider = _widening(blocks), _widening(seeds)
        drawn, step = [sums.sum(axis=0)[None]], max(1, _AT_ONCE // blocks)
        for start in range(0, draws, step):
            rows = min(step, draws - start)
            chosen = rng.integers(0, blocks, (rows, blocks)) + blocks * np.arange(rows)[:, None]
            times = np.bincount(chosen.ravel(), minlength=rows * blocks).reshape(rows, blocks)
            drawn.append(times.astype(np.float64) @ sums)
        drawn = np.concatenate(drawn)
        means = (drawn[:, :-1] / drawn[:, -1:]).reshape(draws + 1, -1, seeds)
        means = np.sqrt(means) if root else means
        chosen = rng.integers(0, seeds, (draws, 1, seeds))
        whole = np.broadcast_to(means[:1], means[1:].shape)
        self.whole = means[0].mean(axis=1)  # (M,) all blocks and seeds
        self.blocks = means[1:].mean(axis=2).T  # (M, draws) drawn blocks, all seeds
        self.seeds = np.take_along_axis(whole, chosen, axis=2).mean(axis=2).T  # the other way
        self.both = np.take_along_axis(means[1:], chosen, axis=2).mean(axis=2).T

    def spread(self, statistic: Callable[..., np.ndarray]) -> np.ndarray:
        """A statistic of the M models' scores, for each draw: see `compare`."""
        whole = statistic(*self.whole)
        blocks, seeds, both = (statistic(*s) for s in (self.blocks, self.seeds, self.both))
        block, seed = blocks - whole, seeds - whole
        of_block, of_seed = self.unbiased[0] * block.var(), self.unbiased[1] * seed.var()
        of_both = max(0.0, self.unbiased[1] * (both - blocks).var() - of_seed)
        twice = of_block + of_seed
        share = max(of_block, of_seed, twice - of_both) / twice if twice else 1.0
        return whole + math.sqrt(share) * (self.wider[0] * block + self.wider[1] * seed)


def _widening(n: int) -> float:
    """f(n) of `compare`; 0 for one, of which there is no spread to widen."""
    from scipy import special

    if n < 2:
        return 0.0
    return math.sqrt(n / (n - 1)) * float(special.stdtrit(n - 1, 0.975) / special.ndtri(0.975))


def sign_flip(differences: np.ndarray, seed: int = 0) -> float:
    """The exact two-sided p of a mean difference (R,), if each could as well have the other sign.

        p = share of all 2^R choices of signs with |sum of +-d| >= |sum of d|

    It can't be below 2 / 2^R: .0625 with five seeds, .031 with six. Above 12 seeds, 10,000 random
    choices stand for all.
    """
    count = len(differences)
    if count <= _MOST_SIGNS:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    else:
        rng = np.random.default_rng(seed)
        signs = np.vstack([np.ones(count), rng.choice([-1.0, 1.0], (9_999, count))])
    sums = np.abs(signs @ differences)
    return float(np.mean(sums >= sums[0] - 1e-9 * np.abs(differences).sum()))


def holm(p: list[float]) -> list[float]:
    """p values corrected for as many tests: the k-th smallest of n times n - k + 1, increasing."""
    order, worst, out = np.argsort(p), 0.0, [0.0] * len(p)
    for k, i in enumerate(order):
        worst = max(worst, min(1.0, p[i] * (len(p) - k)))
        out[i] = worst
    return out


def diebold_mariano(model: Losses, reference: Losses, horizon: int) -> Test:
    """Equal accuracy on one series, two-sided, with the Harvey-Leybourne-Newbold correction.

        d_i = difference of the items' mean losses, averaged over seeds;   h = horizon
        V = c_0 + 2 sum over k < h of c_k,   c_k = 1/n sum of (d_i - D)(d_{i-k} - D),  D = mean d
        statistic = D / sqrt(V / n) * sqrt((n + 1 - 2 h + h (h - 1) / n) / n),  Student's t(n - 1)

    c_k is weighted by 1 - k / h where V would not be positive. A second opinion: it takes the
    networks as given, so says nothing about other seeds, and losses of a root are squares.

    Args:
      horizon: steps ahead of the longest forecast, in items.

    Returns:
      NaN for both without a finite seed, with no more items than h, or where no item differs.
    """
    from scipy import special

    _same_items(model, reference)
    scored = model.count > 0
    gaps = (model.total - reference.total)[:, scored] / model.count[scored]
    gaps = gaps[np.isfinite(gaps).all(axis=1)]
    n, h = gaps.shape[1], horizon
    if not len(gaps) or n <= h:
        return Test(math.nan, math.nan)
    d = gaps.mean(axis=0)
    mean, d = d.mean(), d - d.mean()
    covariances = np.array([d[k:] @ d[: n - k] / n for k in range(h)])
    variance = covariances[0] + 2 * covariances[1:].sum()
    if variance <= 0:
        variance = covariances[0] + 2 * covariances[1:] @ (1 - np.arange(1, h) / h)
    if variance <= 0:
        return Test(math.nan, math.nan)
    correction = math.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    statistic = float(mean / math.sqrt(variance / n) * correction)
    return Test(statistic, float(2 * special.stdtr(n - 1, -abs(statistic))))
