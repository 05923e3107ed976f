"""Three answers to each question, with the sentences that say them.

Every claim is "its score is lower than the reference's by more than the margin", the margin being
a share of the reference's score.

    worth it      the 95 % interval lies below -margin, p <= .05 after Holm's correction, and the
                  signs of the seeds' differences give p <= .05, which takes six seeds
    not worth it  the interval lies above -margin: a gain of that size is ruled out
    undecided     else, and always with one seed or one block of test items

Holm's correction is over all comparisons of a call, on the bootstrap's p. On the sign-flip p it
could never reach .05 with six seeds and more than one candidate. Both p are of no difference, so
a candidate that is as good as the reference is called worth it in at most 5 % of reports; the
interval is not corrected for the number of candidates. The p of a sentence is the larger of the
two, since the claim needs both.

The network of a question with several (the best MI network, the RHN) is the one with the lowest
score on the valid part: chosen on the test part it would look better than it is.
"""

import math
from typing import Any

import numpy as np

from rnnx.report import significance
from rnnx.report.significance import Comparison, Losses

LEVEL = 0.05
ENOUGH_SEEDS = 6  # for the sign-flip p to reach LEVEL
MI, RHN, OTHERS = (
    "Is multiplicative integration worth it?",
    "Is a recurrent highway network worth it?",
    "Is another cell worth it?",
)


def verdicts(
    losses: dict[str, Losses],
    valid: dict[str, float],
    floors: dict[str, float],
    metric: str,
    margin: float = 0.02,
    horizon: int | None = None,
    equal: str = "epochs",
) -> list[dict[str, Any]]:
    """The rows "verdicts" of report.json.

    Each MI-X is compared with X, the best MI network with the LSTM, the best RHN without MI with
    the LSTM, and every other network without MI with the LSTM. Where a network is missing, so are
    its comparisons.

    Args:
      losses: of every network on the test part, by name: X, MI-X; an RHN's begins with RHN.
      valid: the score of each on the valid part; NaN for one that always diverged.
      floors: the score of each floor on the test part.
      metric: what the losses score, as the sentences say it: "MAE", "error rate".
      margin: the least gain that counts, as a share of the reference's score.
      horizon: of one series, in test items, for Diebold and Mariano's test; None: no such test.
      equal: what the networks had as much of, "epochs" or "seconds".
    """
    asked = _questions(list(losses), valid)
    found = [significance.compare(losses[model], losses[against]) for _, model, against, _ in asked]
    corrected = significance.holm([c.p for c in found])
    rows = []
    for (question, model, against, role), c, p_holm in zip(asked, found, corrected, strict=True):
        p_dm = math.nan
        if horizon:
            p_dm = significance.diebold_mariano(losses[model], losses[against], horizon).p
        left_out = len(losses[model].total) - c.seeds
        sentence = _sentence(model + role, against, c, p_holm, metric, margin, left_out)
        rows.append(
            {
                "question": question,
                "model": model,
                "against": against,
                "difference": _number(c.difference),
                "interval": _pair(c),
                "p": c.p,
                "p_sign": c.p_sign,
                "p_holm": p_holm,
                "p_dm": _number(p_dm),
                "answer": answer(c, p_holm, margin),
                "sentence": sentence + _floor(losses[model], floors, metric) + ".",
                "equal": equal,
            }
        )
    return rows


def answer(comparison: Comparison, p_holm: float, margin: float) -> str:
    """ "worth it", "not worth it" or "undecided": see the head of this file."""
    if comparison.seeds < 2 or comparison.blocks < 2:
        return "undecided"
    if comparison.high < -margin and max(p_holm, comparison.p_sign) <= LEVEL:
        return "worth it"
    return "not worth it" if comparison.low > -margin else "undecided"


def control(first: Losses, second: Losses, metric: str, name: str = "LSTM") -> dict[str, Any]:
    """The row "control" of report.json: a network against itself with other seeds.

    "no difference", unless the interval excludes 0 and the sign-flip p is at most .05. Six seeds
    that differ by chance alone have 2 of 64 choices of signs as far out: in 3 of 100 reports or
    fewer a control that is right reports a difference.
    """
    c = significance.compare(first, second)
    differs = (c.low > 0 or c.high < 0) and c.p_sign <= LEVEL
    found = "a difference" if differs else "no difference"
    sentence = f"{name} against {name} with other seeds shows {found}"
    if c.seeds:
        sentence += f": its {_is(metric)} {_size(c.difference)} ({_interval(c)}, {_p(c.p_sign)})"
    if differs:
        sentence += ", so a verdict about a difference of this size is not to be trusted"
    return {
        "difference": _number(c.difference),
        "interval": _pair(c),
        "p_sign": c.p_sign,
        "answer": found,
        "sentence": sentence + ".",
    }


def cheapest(
    losses: dict[str, Losses],
    valid: dict[str, float],
    floors: dict[str, float],
    latency: dict[str, float],
    seconds: dict[str, float],
    metric: str,
    margin: float = 0.02,
) -> dict[str, str] | None:
    """The cheapest network that is good enough, "model", and "why" in a sentence.

    Good enough: the upper end of the interval of its loss to the best network on the valid part
    is at most the margin. The cheapest has the lowest latency, in two digits as it is a
    measurement, then the shortest training. A network with a seed that diverged is not considered.

    Args:
      latency: microseconds of a step; a missing one counts as the highest.
      seconds: of training, likewise.

    Returns:
      None when every network diverged with some seed.
    """
    sound = [name for name, each in losses.items() if np.isfinite(each.total).all()]
    best = _lowest(sound, valid)
    if best is None:
        return None
    enough = {best: 0.0}
    for name in sound:
        c = significance.compare(losses[name], losses[best])
        if name != best and c.seeds > 1 and c.blocks > 1 and c.high <= margin:
            enough[name] = c.high
    model = min(
        enough,
        key=lambda name: (
            float(f"{latency.get(name, math.inf):.1e}"),
            seconds.get(name, math.inf),
        ),
    )
    why = f"{model} is the best network on the valid part"
    if model != best:
        most = 100 * max(0.0, enough[model])
        why = (
            f"{model} is the cheapest that is good enough: its {_is(metric)} at most {most:.1f} % "
            f"above that of {best}, the best on the valid part"
        )
    elif len(enough) > 1:
        why += ", and none that is as good is cheaper"
    else:
        why += f", and no other is shown to be within {100 * margin:g} % of it"
    return {"model": model, "why": why + _floor(losses[model], floors, metric) + "."}


def behind_floor(score: float, floors: dict[str, float]) -> str | None:
    """The best floor, when its score is lower than a network's."""
    name = min(floors, key=floors.get, default=None)
    return name if name is not None and floors[name] < score else None


def _questions(names: list[str], valid: dict[str, float]) -> list[tuple[str, str, str, str]]:
    """Question, model, reference, and how the model was chosen; no comparison twice."""
    multiplicative = [name for name in names if name.startswith("MI-")]
    asked = [(MI, name, name[3:], "") for name in multiplicative if name[3:] in names]
    if "LSTM" not in names:
        return asked
    best = _lowest(multiplicative, valid)
    if best not in (None, "MI-LSTM"):
        asked.append((MI, best, "LSTM", ", the best MI network on the valid part,"))
    highway = [name for name in names if name.startswith("RHN")]
    best = _lowest(highway, valid)
    if best is not None:
        role = ", the best RHN on the valid part," if len(highway) > 1 else ""
        asked.append((RHN, best, "LSTM", role))
    others = [name for name in names if name not in (*multiplicative, *highway, "LSTM")]
    return asked + [(OTHERS, name, "LSTM", "") for name in others]


def _lowest(names: list[str], valid: dict[str, float]) -> str | None:
    finite = [name for name in names if np.isfinite(valid.get(name, math.nan))]
    return min(finite, key=lambda name: valid[name], default=None)


def _sentence(
    model: str,
    against: str,
    c: Comparison,
    p_holm: float,
    metric: str,
    margin: float,
    left_out: int,
) -> str:
    """One verdict in plain English, without its full stop."""
    if not c.seeds:
        return f"Whether {model} is worth it is undecided: every seed diverged"
    found, p = answer(c, p_holm, margin), max(p_holm, c.p_sign)
    gain = f"a gain of {100 * margin:g} %"
    facts = f"its {_is(metric)} {_size(c.difference)} than the {against}'s ({_interval(c)}, {_p(p)}"
    if left_out:
        facts += f"; {left_out} of {left_out + c.seeds} seeds diverged and are left out"
    facts += ")"
    if found == "worth it":
        return f"{model} is worth it: {facts}"
    if found == "not worth it":
        return f"{model} is not worth it: {facts}, which rules out {gain}"
    if c.seeds < 2:
        reason = "but one seed can't tell"
    elif c.blocks < 2:
        reason = "but the test part is too short to tell"
    elif c.high >= -margin:
        reason = f"so {gain} is neither shown nor ruled out"
    elif c.seeds < ENOUGH_SEEDS:
        reason = f"but it takes {ENOUGH_SEEDS} seeds to tell, and there are {c.seeds}"
    else:
        reason = "but chance could explain that"
    return f"Whether {model} is worth it is undecided: {facts}, {reason}"


def _floor(losses: Losses, floors: dict[str, float], metric: str) -> str:
    """What a sentence adds about a network behind a floor."""
    known = significance.scores(losses)
    if np.isnan(known).all():
        return ""
    score = float(np.nanmean(known))
    name = behind_floor(score, floors)
    if name is None:
        return ""
    return f"; yet a floor, {name}, is better ({metric} {floors[name]:.4g} against {score:.4g})"


def _is(metric: str) -> str:
    """`MAE is`, `bits per character are`."""
    return f"{metric} {'are' if metric.startswith('bits') else 'is'}"


def _size(difference: float) -> str:
    return f"{100 * abs(difference):.1f} % {'lower' if difference < 0 else 'higher'}"


def _interval(c: Comparison) -> str:
    if c.low < 0 <= c.high:
        return f"95 % interval {_size(c.low)} to {_size(c.high)}"
    near, far = sorted((c.low, c.high), key=abs)
    return f"95 % interval {100 * abs(near):.1f} to {_size(far)}"


def _p(p: float) -> str:
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".")


def _pair(c: Comparison) -> list[float] | None:
    return None if math.isnan(c.low) else [c.low, c.high]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
