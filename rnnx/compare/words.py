"""A comparison in words: numbers, sentences and tables for the page, Markdown and the terminal."""

import math
from collections.abc import Callable
from typing import Any

from rnnx.duration import duration
from rnnx.report.table import Table

_MISSING = "-"
STATISTICS = (
    "Differences are paired: the same seed and the same test item for both networks.",
    "Intervals are 95 % percentile intervals of a bootstrap over seeds and over blocks of the "
    "test part.",
    "A network is worth it when the whole interval lies beyond the margin, and p is at most .05 "
    "both after Holm's correction for the number of candidates and in the exact sign-flip test "
    "over seeds; it is not worth it when no gain beyond the margin lies in the interval; all "
    "else is undecided.",
)


def number(value: float | None, digits: int = 4) -> str:
    """Four significant digits, with thousands separators; integers whole; `-` if not measured."""
    if value is None:
        return _MISSING
    if isinstance(value, int):
        return f"{value:,}"
    rounded = float(f"{value:.{digits - 1}e}")
    if rounded and not 1e-5 <= abs(rounded) < 1e12:
        return f"{rounded:.{digits - 1}e}"
    exponent = math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{rounded:,.{max(0, digits - 1 - exponent)}f}"


def percent(share: float | None) -> str:
    """A difference: `-3.2 %`."""
    return _MISSING if share is None else f"{round(100 * share, 1) + 0.0:+.1f} %"


def between(interval: list | None, show: Any = number) -> str:
    """`0.21 to 0.25`."""
    if not interval or None in interval:
        return _MISSING
    low, high = map(show, interval)
    return f"{low.removesuffix(' %')} to {high}"


def probability(p: float | None) -> str:
    """`.031`, or `< .001`."""
    if p is None:
        return _MISSING
    return "< .001" if p < 0.0005 else f"{p:.3f}".removeprefix("0")


def many(count: int, one: str, more: str = "") -> str:
    """`1 trial`, `6 trials`."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def metric(report: dict) -> str:
    """`MAE (kW)`."""
    return report["metric"] + (f" ({report['unit']})" if report["unit"] else "")


def better(report: dict) -> str:
    return "lower is better" if report["lower_is_better"] else "higher is better"


def ordered(report: dict) -> list[dict]:
    """The models, best score first; those without a score last."""
    sign = 1 if report["lower_is_better"] else -1
    return sorted(report["models"], key=lambda m: (m["score"] is None, sign * (m["score"] or 0.0)))


def dominated(report: dict, cost: Callable[[dict], Any]) -> set[str]:
    """The names of models that another beats in both score and cost."""
    sign = 1 if report["lower_is_better"] else -1
    known = [m for m in report["models"] if m["score"] is not None and cost(m) is not None]
    return {
        one["name"]
        for one in known
        if any(
            sign * other["score"] < sign * one["score"] and cost(other) < cost(one)
            for other in known
        )
    }


def notes(report: dict, model: dict) -> list[str]:
    """What stands out about a model."""
    said = []
    if model["score"] is not None and model is ordered(report)[0]:
        said.append("best")
    if (report["chosen"] or {}).get("model") == model["name"]:
        said.append("chosen")
    if model.get("behind_floor"):
        said.append(f"behind {model['behind_floor']}")
    if model.get("diverged"):
        seeds = len(model["scores_by_seed"]) or report["plan"]["seeds"]
        said.append(f"{model['diverged']} of {many(seeds, 'seed')} diverged")
    return said


def title(report: dict) -> str:
    return f"{report['data']['name']}: which recurrent network is worth it?"


def subtitle(report: dict) -> str:
    """`Forecasting, by MAE (kW) on the test part, lower is better.`"""
    kind = {
        "forecast": "Forecasting", "classify": "Classification", "regress": "Regression",
        "text": "Language modelling",
    }[report["task"]]  # fmt: skip
    return f"{kind}, by {metric(report)} on the test part; {better(report)}."


def summary(report: dict) -> str:
    """`11 comparisons: 1 worth it (MI-LSTM), 8 not worth it, 2 undecided.`"""
    verdicts = [v for v in report["verdicts"] if v["equal"] == "epochs"]
    if not verdicts:
        return "No networks were compared."
    parts = []
    for answer in ("worth it", "not worth it", "undecided"):
        models = [v["model"] for v in verdicts if v["answer"] == answer]
        named = f" ({', '.join(models)})" if models and answer == "worth it" else ""
        parts.append(f"{len(models) or 'none'} {answer}{named}")
    return f"{many(len(verdicts), 'comparison')}: {', '.join(parts)}."


_TESTS = {"p": "p", "p_holm": "Holm", "p_sign": "sign-flip", "p_dm": "Diebold-Mariano"}


def tested(verdict: dict) -> str:
    """`-3.2 % (95 %: -4.4 to -2.1 %), p .010, Holm .040, sign-flip .031`."""
    parts = [
        f"{percent(verdict['difference'])} (95 %: {between(verdict['interval'], percent)})",
        *(
            f"{name} {probability(verdict[key])}"
            for key, name in _TESTS.items()
            if verdict.get(key) is not None
        ),
    ]
    return ", ".join(parts)


EQUAL = {"epochs": "same epochs", "seconds": "same training time"}


def verdicts(report: dict) -> list[list[dict]]:
    """The verdicts on each question: with the same epochs, then with the same training time."""
    pairs: dict[tuple, list[dict]] = {}
    for verdict in report["verdicts"]:
        pairs.setdefault((verdict["model"], verdict["against"]), []).append(verdict)
    return [sorted(pair, key=lambda v: list(EQUAL).index(v["equal"])) for pair in pairs.values()]


def scores(report: dict) -> Table:
    """Floors, then networks, best first."""
    models, floors = ordered(report), report["floors"]
    names = dict.fromkeys(key for entry in (*models, *floors) for key in entry.get("metrics") or {})
    names.pop(report["metric"], None)
    timed = any(m.get("equal_time") for m in models)
    headings = ["", "parameters", metric(report), "95 % interval"]
    headings += ["at equal time", "95 % interval"] * timed
    rows = []
    for entry in (*floors, *models):
        equal = entry.get("equal_time") or {}
        row = [
            entry["name"],
            number(entry.get("params")),
            number(entry["score"]),
            between(entry.get("interval")),
        ]
        row += [number(equal.get("score")), between(equal.get("interval"))] * timed
        row += [number((entry.get("metrics") or {}).get(name)) for name in names]
        row.append("floor" if entry in floors else ", ".join(notes(report, entry)))
        rows.append(tuple(row))
    note = f"Scores are {report['metric']} on the test part; {better(report)}."
    return Table("Scores", (*headings, *names, "note"), rows, note)


def cost(report: dict) -> Table | None:
    """What each network costs, in the order of the scores; None where nothing was measured."""
    models = ordered(report)

    def latency(which: str) -> list:
        return [(m.get("latency_us") or {}).get(which) for m in models]

    def scaled(key: str, by: float) -> list:
        return [None if m.get(key) is None else m[key] / by for m in models]

    columns = {
        "units": scaled("hidden_size", 1),
        "training (s)": scaled("train_seconds", 1),
        "to the LSTM's score (s)": scaled("seconds_to_lstm", 1),
        "one step, median (µs)": latency("p50"),
        "one step, 99th percentile (µs)": latency("p99"),
        "one window (µs)": scaled("window_us", 1),
        "windows a second, batch 32": scaled("throughput", 1),
        "peak memory (MB)": scaled("memory_bytes", 1e6),
        "on disk (kB)": scaled("disk_bytes", 1e3),
    }
    measured = {k: v for k, v in columns.items() if any(x is not None for x in v)}
    if not set(measured) - {"units"}:
        return None
    rows = [
        (
            model["name"],
            *(
                number(v[i] if k != "units" or v[i] is None else int(v[i]))
                for k, v in measured.items()
            ),
        )
        for i, model in enumerate(models)
    ]
    note = "Training is the median over seeds of the time to the best epoch."
    if "one step, median (µs)" in measured:
        note += " One step is of one sequence, with the state carried over."
    return Table("Cost", ("", *measured), rows, note)


def done(report: dict) -> list[str]:
    """How the comparison was made."""
    plan = report["plan"]
    lines = []
    if plan.get("param_budget") is not None:
        lines.append(
            f"Every network has about {plan['param_budget']:,} parameters: its width is solved "
            "for that."
        )
    if plan.get("trials") is not None:
        lines.append(
            f"Learning rate and initial range were tuned with {many(plan['trials'], 'trial')} "
            "for each, on the validation part."
        )
    if plan.get("seeds") is not None and plan.get("epochs") is not None:
        lines.append(
            f"Each was then trained with the same {many(plan['seeds'], 'seed')} for "
            f"{many(plan['epochs'], 'epoch')}. The test part was read once, at the end."
        )
    if plan.get("seconds") is not None:
        spent = f"All of it took {duration(plan['seconds'])}"
        asked = plan.get("minutes")
        lines.append(f"{spent} of {asked:g} min allowed." if asked else f"{spent}.")
    if plan.get("margin") is not None:
        lines.append(f"The margin is {100 * plan['margin']:g} % of the reference's error.")
    return lines


def data(report: dict) -> list[str]:
    """What the data are: a line each."""
    found = report["data"]
    lines = []
    if found.get("file"):
        digest = f", sha256 {found['sha256'][:16]}..." if found.get("sha256") else ""
        lines.append(f"{found['file']}{digest}")
    if found.get("rows"):
        train, valid, test = (f"{count:,}" for count in found["rows"])
        lines.append(f"{train} to train, {valid} to validate, {test} to test.")
    return lines + list(found.get("about") or [])


def machine(report: dict) -> str:
    """`cpu (AMD EPYC, 2 cores), 2 threads; jax 0.10.2; git 0123abc`."""
    about = report["machine"] or {}
    parts = [str(about["device"])] if about.get("device") else []
    if parts and about.get("threads") is not None:
        parts[0] += f", {many(about['threads'], 'thread')}"
    versions = about.get("versions") or {}
    parts.append(", ".join(f"{name} {version}" for name, version in versions.items()))
    if about.get("git"):
        parts.append(f"git {about['git']}")
    return "; ".join(filter(None, parts))
