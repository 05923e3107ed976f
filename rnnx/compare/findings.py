"""From trained, scored and timed runs to the report's one dict."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnnx import cli, workdir
from rnnx.compare import verdict
from rnnx.compare.candidates import CANDIDATES, REFERENCE
from rnnx.compare.kind import Items, Kind
from rnnx.compare.plan import Plan
from rnnx.compare.question import Question
from rnnx.compare.runs import TUNED, Run, schedule
from rnnx.report import significance as tests
from rnnx.report.significance import Losses
from rnnx.trained import open_run

FORMAT = 1  # of report.json


class Findings:
    """What a comparison found."""

    def __init__(
        self,
        question: Question,
        kind: Kind,
        plan: Plan,
        trained: dict[str, list[Run]],
        items: dict[Path, Items | None],
        floors: list[tuple[str, Items]],
        costs: dict[str, dict],
    ):
        """Args:
        trained: all runs by stage.
        items: the test losses of a run, by its folder; None where it diverged.
        costs: by candidate, as measured.
        """
        self.question, self.kind, self.plan = question, kind, plan
        self.trained, self.items, self.costs = trained, items, costs
        self.floors = floors
        self.primary, self.unit = question.task.primary, question.task.unit(question.config)
        self.keys = [key for key in plan.candidates if self._runs("seeds", key)]
        self.floor_scores = {name: kind.score(found) for name, found in floors}

    def report(self, winner: Path, seconds: float) -> dict:
        """report.json. Copies nothing: winner is where the best network will be kept.

        Args:
          seconds: that all of it took.
        """
        q, names = self.question, {key: CANDIDATES[key].name for key in self.keys}
        losses = {names[key]: self._losses("seeds", key) for key in self.keys}
        valid = {names[key]: self._valid("seeds", key) for key in self.keys}
        horizon = None
        if self.kind.name == "forecast" and len(np.unique(self.kind.block)) > 1:
            horizon = -(-q.config.horizon // q.config.stride) if self._one_series() else None
        arguments = (self.floor_scores, self.kind.metric, q.margin, horizon)
        rows = verdict.verdicts(losses, valid, *arguments)
        if self.trained.get("seconds"):
            equal = {names[REFERENCE]: losses[names[REFERENCE]]}
            equal |= {
                names[key]: self._losses("seconds", key) for key in self.keys if key != REFERENCE
            }
            known = {names[key]: self._valid("seconds", key) for key in self.keys}
            known[names[REFERENCE]] = valid[names[REFERENCE]]
            rows += verdict.verdicts(equal, known, *arguments, equal="seconds")
        control = verdict.control(
            self._losses("control", REFERENCE), losses[names[REFERENCE]], self.kind.metric
        )
        models = [self._model(key) for key in self.keys]
        chosen = self._chosen(losses, valid, models, winner)
        best = self._best_run(chosen["key"]) if chosen else None
        dataset = q.dataset
        notes = [line for line in dataset.about[1:] if not line.startswith("warning: ")]
        warnings = [line[9:] for line in dataset.about if line.startswith("warning: ")]
        return {
            "format": FORMAT,
            "task": self.kind.name,
            "metric": self.kind.metric,
            "unit": self.kind.unit,
            "lower_is_better": True,
            "valid_metric": self.unit.label,
            "data": {
                "name": dataset.name,
                "file": q.file,
                "sha256": ", ".join(dataset.sums.values()),
                "rows": list(dataset.sizes),
                "about": [dataset.about[0]],
                "notes": notes,
                "warnings": warnings,
            },
            "plan": {
                "minutes": q.minutes,
                "param_budget": q.config.param_budget,
                "trials": self.plan.trials,
                "seeds": self.plan.seeds,
                "epochs": self.plan.epochs,
                "left_out": self.plan.left_out,
                "seconds": seconds,
                "margin": q.margin,
            },
            "floors": [
                {"name": name, "score": self.floor_scores[name], "metrics": found.metrics,
                 "by_step": found.by_step}
                for name, found in self.floors
            ],
            "models": models,
            "verdicts": rows,
            "control": control,
            "fractions": self._fractions(),
            "chosen": chosen,
            "examples": self.kind.examples(open_run(best.folder)) if best else {},
            "machine": {**workdir.machine(), "threads": q.workers},
            "commands": self._commands(chosen),
        }  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """runs.csv."""
        found = []
        for stage, runs in self.trained.items():
            planned = self.plan.tuned_for if stage == "tune" else self.plan.epochs
            for run in runs:
                items, result = self.items.get(run.folder), run.result
                found.append(
                    {
                        "model": CANDIDATES[run.key].name,
                        "stage": stage,
                        "seed": run.seed,
                        "learning_rate": run.point["learning_rate"],
                        "init_scale": run.point["init_scale"],
                        "fraction": run.point.get("fraction", 1.0),
                        "epochs": run.point.get("epochs", planned),
                        "seconds": result and result["seconds"],
                        "valid": result and self.unit.of(result["valid"][self.primary]),
                        "test": items and self.kind.score(items),
                        **(items.metrics if items else {}),
                    }
                )
        return found

    def best_folder(self, report: dict) -> Path | None:
        """The workdir of the chosen network's best seed on the valid part."""
        return self._best_run(report["chosen"]["key"]).folder if report["chosen"] else None

    # ------------------------------------------------------------------------ of a candidate

    def _runs(self, stage: str, key: str) -> list[Run]:
        runs = [run for run in self.trained.get(stage, ()) if run.key == key]
        return sorted(runs, key=lambda run: run.seed)

    def _losses(self, stage: str, key: str, runs: Sequence[Run] | None = None) -> Losses:
        """Of each seed; not a number where it diverged."""
        absent = Items(np.full(len(self.kind.count), np.nan), {})
        runs = self._runs(stage, key) if runs is None else runs
        return self.kind.losses([self.items.get(run.folder) or absent for run in runs])

    def _valid(self, stage: str, key: str) -> float:
        """Mean valid score of the seeds."""
        known = [r.result["valid"][self.primary] for r in self._runs(stage, key) if r.result]
        return statistics.fmean(known) if known else float("nan")

    def _best_run(self, key: str) -> Run:
        runs = [run for run in self._runs("seeds", key) if run.result]
        return min(runs, key=lambda run: run.result["valid"][self.primary])

    def _model(self, key: str) -> dict[str, Any]:
        """A row of "models"."""
        runs, costs = self._runs("seeds", key), self.costs[key]
        done = [run for run in runs if run.result]
        losses = self._losses("seeds", key)
        scores = tests.scores(losses)
        finite = scores[np.isfinite(scores)]
        config = done[0].result["config"] if done else self._runs("tune", key)[0].point
        goal = self._goal()
        found = [self.items[run.folder] for run in done]
        steps = [i.by_step for i in found if i.by_step is not None]
        equal = None
        if key == REFERENCE and self.plan.equal_seconds:
            equal = self._equal(key, "seeds")
        elif self._runs("seconds", key):
            equal = self._equal(key, "seconds")
        score = float(finite.mean()) if len(finite) else None
        return {
            "name": CANDIDATES[key].name,
            "key": key,
            "cell": CANDIDATES[key].cell,
            "integration": CANDIDATES[key].integration,
            "depth": CANDIDATES[key].depth,
            "hidden_size": config.get("hidden_size"),
            "params": done[0].result["params"] if done else None,
            "score": score,
            "interval": list(tests.interval(losses)) if len(finite) else None,
            "scores_by_seed": scores.tolist(),
            "diverged": len(runs) - len(done),
            "train_seconds": _median([self._seconds(run, self._best_epoch(run)) for run in done]),
            "seconds_to_lstm": _median(
                [self._seconds(run, self._reaches(run, goal)) for run in done], all_of=True
            ),
            "memory_bytes": _median([run.result.get("memory_bytes") for run in done]),
            "disk_bytes": costs["disk_bytes"],
            "latency_us": costs["latency_us"],
            "window_us": costs["window_us"],
            "throughput": costs["throughput"],
            "metrics": _means([i.metrics for i in found]),
            "equal_time": equal,
            "tuning": [
                {**{n: run.point[n] for n in TUNED},
                 "score": run.result and self.unit.of(run.result["valid"][self.primary])}
                for run in self._runs("tune", key)
            ],
            "chosen": {name: runs[0].point[name] for name in TUNED},
            "behind_floor": None if score is None else verdict.behind_floor(
                score, self.floor_scores),
            "curves": [self._curve(run) for run in done],
            "by_step": np.mean(steps, axis=0) if steps else None,
        }  # fmt: skip

    def _equal(self, key: str, stage: str) -> dict[str, Any]:
        """Its row of the table of equal training seconds."""
        runs, losses = self._runs(stage, key), self._losses(stage, key)
        scores = tests.scores(losses)
        finite = scores[np.isfinite(scores)]
        return {
            "score": float(finite.mean()) if len(finite) else None,
            "interval": list(tests.interval(losses)) if len(finite) else None,
            "scores_by_seed": scores.tolist(),
            "epochs": runs[0].point.get("epochs", self.plan.epochs),
            "seconds": _median([run.result["seconds"] for run in runs if run.result]),
        }

    def _curve(self, run: Run) -> list[dict[str, float]]:
        update = self.costs[run.key]["update"]
        return [
            {
                "epoch": line["epoch"] + 1,
                "seconds": line["step"] * update,
                "train": self.unit.of(line[f"train_{self.primary}"]),
                "valid": self.unit.of(line[f"valid_batched_{self.primary}"]),
            }
            for line in run.epochs
        ]

    def _best_epoch(self, run: Run) -> int | None:
        """Index of the epoch with the best valid score."""
        valid = [line[f"valid_batched_{self.primary}"] for line in run.epochs]
        return int(np.argmin(valid)) if valid else None

    def _reaches(self, run: Run, goal: float) -> int | None:
        """Index of the first epoch that is as good as the goal on the valid part."""
        valid = [line[f"valid_batched_{self.primary}"] for line in run.epochs]
        return next((i for i, score in enumerate(valid) if score <= goal), None)

    def _goal(self) -> float:
        """The LSTM's best valid score, the median over seeds."""
        best = [
            min(line[f"valid_batched_{self.primary}"] for line in run.epochs)
            for run in self._runs("seeds", REFERENCE)
            if run.result and run.epochs
        ]
        return statistics.median(best) if best else float("-inf")

    def _seconds(self, run: Run, epoch: int | None) -> float | None:
        """Training seconds up to the end of an epoch, at the speed measured alone."""
        return None if epoch is None else run.epochs[epoch]["step"] * self.costs[run.key]["update"]

    # ------------------------------------------------------------------------ of all

    def _one_series(self) -> bool:
        return len(self.kind.origins) == 1

    def _fractions(self) -> list[dict[str, Any]]:
        rows = []
        for key in self.keys:
            runs = self._runs("fraction", key)
            for fraction in sorted({run.point["fraction"] for run in runs}):
                mine = [run for run in runs if run.point["fraction"] == fraction]
                rows.append(self._fraction(key, fraction, self._losses("", key, mine)))
            if runs:
                rows.append(self._fraction(key, 1.0, self._losses("seeds", key)))
        return rows

    def _fraction(self, key: str, fraction: float, losses: Losses) -> dict[str, Any]:
        scores = tests.scores(losses)
        finite = scores[np.isfinite(scores)]
        return {
            "model": CANDIDATES[key].name,
            "fraction": fraction,
            "score": float(finite.mean()) if len(finite) else None,
            "interval": list(tests.interval(losses)) if len(finite) else None,
        }

    def _chosen(
        self, losses: dict[str, Losses], valid: dict[str, float], models: list, winner: Path
    ) -> dict[str, str] | None:
        by_name = {model["name"]: model for model in models}
        latency = {
            name: model["latency_us"]["p50"] for name, model in by_name.items()
            if model["latency_us"]
        }  # fmt: skip
        seconds = {
            name: model["train_seconds"] for name, model in by_name.items()
            if model["train_seconds"]
        }  # fmt: skip
        found = verdict.cheapest(
            losses, valid, self.floor_scores, latency, seconds, self.kind.metric,
            self.question.margin,
        )  # fmt: skip
        if found is None:
            return None
        use = "predict" if self.kind.name != "text" else "sample"
        rest = " --data=NEW.csv" if use == "predict" else ' --prompt=""'
        return {
            **found,
            "key": by_name[found["model"]]["key"],
            "workdir": str(winner),
            "command": f"python -m rnnx.{use} --workdir={winner}{rest}",
        }

    def _commands(self, chosen: dict | None) -> list[str]:
        """How this was made, and how to train each network again."""
        commands = [cli.command()]
        for key in self.keys:
            point = schedule(self.plan.epochs) | self._runs("seeds", key)[0].point
            flags = " ".join(
                [*self.question.arguments, *(f"--config.{n}={v}" for n, v in point.items())]
            )
            commands.append(f"python -m rnnx.train {flags} --workdir=runs/{key}")
        return commands + ([chosen["command"]] if chosen else [])


def _median(values: Sequence[float | None], all_of: bool = False) -> float | None:
    """The median of what was measured, None when nothing was; with all_of None is the highest: what
    never comes is later than all that does."""
    known = [value for value in values if value is not None]
    if all_of:
        known += [math.inf] * (len(values) - len(known))
    found = statistics.median(known) if known else math.inf
    return found if math.isfinite(found) else None


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each measure over seeds."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}
