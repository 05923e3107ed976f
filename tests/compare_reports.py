"""Made-up reports of comparisons: twelve networks, six seeds, of every kind of task."""

import numpy as np

NETWORKS = (
    ("LSTM", "lstm", "additive", 1), ("MI-LSTM", "lstm", "mi", 1),
    ("GRU", "gru", "additive", 1), ("MI-GRU", "gru", "mi", 1),
    ("RHN L=2", "rhn", "additive", 2), ("MI-RHN L=2", "rhn", "mi", 2),
    ("RHN L=5", "rhn", "additive", 5), ("MI-RHN L=5", "rhn", "mi", 5),
    ("RNN", "rnn", "additive", 1), ("MI-RNN", "rnn", "mi", 1),
    ("minGRU", "mingru", "additive", 1), ("sLSTM", "slstm", "additive", 1),
)  # fmt: skip
SEEDS, EPOCHS, HORIZON = 6, 30, 24
_TASKS = {
    "forecast": ("MAE", "kW", 1430.0, {"RMSE": 1.4, "MASE": 0.0007, "sMAPE": 0.009}),
    "classify": ("error rate", "", 0.08, {"accuracy": 11.0, "macro F1": 10.8, "log loss": 3.0}),
    "regress": ("RMSE", "cycles", 15.4, {"C-MAPSS score": 24.0, "MAE": 0.8}),
    "text": ("bits per character", "", 1.52, {"perplexity": 1.9}),
}
_FLOORS = {
    "forecast": {"last value": 2.4, "same hour last week": 1.03, "ridge on lags": 1.12},
    "classify": {"majority class": 9.0, "1-nearest neighbour": 1.2},
    "regress": {"mean": 2.7, "linear": 1.3},
    "text": {"unigrams": 2.8, "5-grams": 1.4},
}


def report(task: str) -> dict:
    """A whole report: of these twelve one diverges at times and one is behind a floor."""
    rng = np.random.default_rng(0)
    metric, unit, scale, ratios = _TASKS[task]
    floors = [
        {"name": name, "score": scale * ratio, "metrics": {m: scale * ratio * r for m, r in
         ratios.items()}} for name, ratio in _FLOORS[task].items()
    ]  # fmt: skip
    models = [_model(rng, i, scale, ratios) for i in range(len(NETWORKS))]
    if task == "forecast":
        growth = np.linspace(0.6, 1.3, HORIZON)
        for entry in (*models, floors[1]):
            entry["by_step"] = entry["score"] * growth * rng.uniform(0.98, 1.02, HORIZON)
    best = min(floors, key=lambda f: f["score"])
    for m in models:
        m["behind_floor"] = best["name"] if m["score"] > best["score"] else None
    return {
        "format": 1, "task": task, "metric": metric, "unit": unit, "lower_is_better": True,
        "data": {
            "name": "AEP_hourly", "file": "series/AEP_hourly.csv", "sha256": "0123456789abcdef" * 4,
            "rows": [84_000, 12_000, 24_000],
            "about": ["1 series, 1 target (AEP_MW), time step 1 hour, season 168 steps (1 week)"],
            "notes": ["sorted by time", "4 times were there twice: their mean is kept"],
            "warnings": ["covariate 'load_next' equals the target 1 step later: it gives the "
                         "answer away"],
        },
        "plan": {"minutes": 30, "param_budget": 50_000, "trials": 8, "seeds": SEEDS,
                 "epochs": EPOCHS, "left_out": ["RHN L=10: no time"], "seconds": 1_724.0,
                 "margin": 0.02},
        "floors": floors, "models": models,
        "verdicts": [v for equal in ("epochs", "seconds") for v in _verdicts(rng, models, equal)],
        "control": {"difference": 0.002, "interval": [-0.006, 0.009], "p_sign": 0.56,
                    "answer": "no difference", "sentence": "LSTM against LSTM with other seeds: "
                    "no difference (+0.2 %, -0.6 to +0.9 %)."},
        "fractions": [
            {"model": m["name"], "fraction": f, "score": m["score"] * f**-0.1,
             "interval": [m["score"] * f**-0.1 * s for s in (0.98, 1.02)]}
            for m in (models[1], models[5], models[0]) for f in (0.1, 0.3, 1.0)
        ],
        "chosen": {"model": "MI-LSTM", "workdir": "out/best", "why": "The cheapest of those "
                   "within the margin of the best.",
                   "command": "python -m rnnx.predict --workdir=out/best --data=NEW.csv"},
        "examples": _EXAMPLES[task](rng, scale),
        "machine": {"device": "cpu (2 cores)", "threads": 2, "versions": {"jax": "0.10.2"},
                    "git": "0123456789ab"},
        "commands": ["python -m rnnx.compare --data=AEP_hourly.csv --workdir=out"],
    }  # fmt: skip


def _model(rng: np.random.Generator, i: int, scale: float, ratios: dict) -> dict:
    name, cell, integration, depth = NETWORKS[i]
    mi = integration == "mi"
    centre = scale * (1.0 + 0.01 * (i % 5) - 0.03 * mi + 0.12 * (cell == "rnn"))
    seeds = centre * (1 + 0.006 * rng.standard_normal(SEEDS))
    score = float(seeds.mean())
    interval = [score * 0.985, score * 1.014]
    pace = (1 + 0.3 * mi) * (1 + 0.6 * (depth - 1)) * (1 + 0.03 * i)
    epochs = np.arange(EPOCHS)
    return {
        "name": name, "cell": cell, "integration": integration, "depth": depth,
        "hidden_size": 100 - 4 * i, "params": 50_000 + 37 * i, "score": score,
        "interval": interval, "scores_by_seed": seeds, "diverged": 2 if name == "RNN" else 0,
        "train_seconds": 41.2 * pace, "seconds_to_lstm": None if cell == "rnn" else 23.0 * pace,
        "memory_bytes": 31_000_000 + 700_000 * i, "disk_bytes": 204_800 + 148 * i,
        "latency_us": {"p50": 38.0 * pace, "p99": 61.0 * pace}, "window_us": 2_100.0 * pace,
        "throughput": 9_000.0 / pace,
        "metrics": {m: score * r for m, r in ratios.items()},
        "equal_time": {"score": score * 1.01, "interval": [end * 1.01 for end in interval],
                       "scores_by_seed": seeds * 1.01, "epochs": 25, "seconds": 40.0},
        "tuning": [
            {"learning_rate": rate, "init_scale": width,
             "score": None if cell == "rnn" and rate > 0.015 else
             score * (1 + (0.05 if mi else 0.15) * abs(np.log10(rate / 3e-3)))}
            for rate, width in zip(10 ** rng.uniform(-4, -1.5, 8), 10 ** rng.uniform(-2, 0, 8),
                                   strict=True)
        ],
        "chosen": {"learning_rate": 3e-3, "init_scale": 0.1},
        "curves": [
            [{"epoch": int(e), "seconds": 1.4 * pace * e, "train": None, "valid":
              float(s * (1 + 2.5 * np.exp(-e / (3 + depth)) + 0.01 * rng.standard_normal()))}
             for e in epochs]
            for s in seeds
        ],
        "by_step": None,
    }  # fmt: skip


def _verdicts(rng: np.random.Generator, models: list[dict], equal: str) -> list[dict]:
    found = []
    for model in models[1:]:
        difference = model["score"] / models[0]["score"] - 1
        interval = [difference - 0.012, difference + 0.011]
        answer = "worth it" if interval[1] < -0.02 else (
            "not worth it" if interval[0] > -0.02 else "undecided")  # fmt: skip
        found.append({
            "question": f"Is {model['name']} worth it?", "model": model["name"], "against": "LSTM",
            "difference": difference, "interval": interval, "p": 0.01, "p_sign": 0.031,
            "p_holm": 0.04, "p_dm": None, "answer": answer, "equal": equal,
            "sentence": f"{model['name']} is {answer} against the LSTM.",
        })  # fmt: skip
    return found


def _forecasts(rng: np.random.Generator, scale: float) -> dict:
    time = np.arange(3 * HORIZON)
    found = []
    for i in range(6):
        values = scale * (8 + np.sin(2 * np.pi * time / 24 + i) + 0.1 * rng.standard_normal(72))
        truth = values[-HORIZON:]
        median = truth * (1 + 0.02 * rng.standard_normal(HORIZON))
        width = scale * np.linspace(0.1, 0.6, HORIZON)
        found.append({
            "series": f"H{i + 1}", "target": "AEP_MW", "history": values[:-HORIZON],
            "times": np.datetime64("2018-03-01T05", "s") + 3600 * time[-HORIZON:],
            "truth": truth, "median": median, "low": median - width, "high": median + width,
            "score": float(np.abs(truth - median).mean()),
        })  # fmt: skip
    return {"forecasts": found}


def _confusion(rng: np.random.Generator, scale: float) -> dict:
    matrix = rng.integers(0, 6, (9, 9)) + np.diag(rng.integers(40, 90, 9))
    return {"confusion": {"classes": [f"speaker {i + 1}" for i in range(9)], "matrix": matrix}}


def _scatter(rng: np.random.Generator, scale: float) -> dict:
    truth = rng.uniform(0, 125, 300)
    return {"scatter": {"truth": truth, "predicted": truth + 15 * rng.standard_normal(300)}}


def _samples(rng: np.random.Generator, scale: float) -> dict:
    return {"samples": [{"prompt": "The ", "text": "company said it expects\nto close the sale."}]}


_EXAMPLES = {
    "forecast": _forecasts, "classify": _confusion, "regress": _scatter, "text": _samples,
}  # fmt: skip
