"""A comparison from its plan to its report. Each step is kept in the folder, and done once."""

import dataclasses
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnnx import workdir
from rnnx.compare import cost, plan, report
from rnnx.compare.candidates import CANDIDATES, REFERENCE
from rnnx.compare.findings import Findings
from rnnx.compare.kind import Items, Kind
from rnnx.compare.kinds import KINDS
from rnnx.compare.plan import Plan, Speed
from rnnx.compare.question import Question
from rnnx.compare.runs import Run, Trainings, best_of, stages
from rnnx.display import Display
from rnnx.duration import duration
from rnnx.errors import UserError, writing
from rnnx.tasks import network
from rnnx.trained import open_run

FORMAT = 1  # of plan.json and costs.json


class Comparison:
    """What `rnnx.compare` does in a folder."""

    def __init__(self, question: Question, folder: Path, display: Display):
        self.question, self.folder, self.display = question, folder, display
        config = network.resolve(question.config, question.dataset.spec)
        self.kind: Kind = KINDS[question.config.task](question.task, config, question.dataset)
        self.say = display.print
        self.began, self.before = time.perf_counter(), 0.0
        self.revised, self.measuring, self.whole = False, 0.0, 0.0

    def run(self) -> None:
        """All of it; prints the verdict and where the report is."""
        with workdir.locked(self.folder), writing(self.folder):
            made, speeds = self._plan()
            self._announce(made)
            try:
                made, trained, tuned = self._train(made, speeds)
            finally:
                self._keep_time()
            found = self._findings(made, trained, tuned)
            winner = self.folder / "winner"
            self.whole = self.whole or round(self._spent(), 1)
            made_report = found.report(winner, self.whole)
            self._keep(found.best_folder(made_report), winner)
            report.write(self.folder, made_report, found.rows())
            self.say(report.console_table(made_report))
            for line in report.closing_lines(made_report):
                self.say(line)
            self._keep_time(whole=self.whole)
            self.say(f"in {duration(self.whole)}: {self.folder / 'report.html'}")

    def _findings(self, made: Plan, trained: dict, tuned: dict[str, Run]) -> Findings:
        """Scores every run of the tables on the test part, read here for the first time, and
        measures what networks cost."""
        runs = [run for stage, all_of in trained.items() if stage != "tune" for run in all_of]
        self.display.start("scoring the test part", len(runs))
        items = {}
        for i, run in enumerate(runs):
            items[run.folder] = self._items(run)
            self.display.update(i + 1)
        self.display.finish()
        self.say("scoring simple predictors")
        floors = self.kind.floors()
        costs = self._costs(tuned, trained["seeds"])
        return Findings(self.question, self.kind, made, trained, items, floors, costs)

    @staticmethod
    def _keep(folder: Path | None, winner: Path) -> None:
        """Copies a workdir to where the best network is kept."""
        shutil.rmtree(winner, ignore_errors=True)
        if folder is not None:
            shutil.copytree(folder, winner)

    def _plan(self) -> tuple[Plan, dict[str, Speed]]:
        """The plan, made once.

        Raises:
          UserError: when the folder holds a comparison of something else.
        """
        path, asked = self.folder / "plan.json", self.question.to_json()
        if path.exists():
            stored = workdir.read_json(path, FORMAT)
            if differing := [name for name in asked if asked[name] != stored["question"].get(name)]:
                raise UserError(
                    f"{self.folder} holds another comparison (it differs in "
                    f"{', '.join(differing)}): choose another --workdir, or the same flags to "
                    "resume"
                )
            speeds = {name: Speed(**value) for name, value in stored["speeds"].items()}
            self.before, self.revised = stored["spent"], stored["revised"]
            self.measuring, self.whole = stored["measuring"], stored["whole"]
            return Plan.from_json(stored["plan"]), speeds
        names = [c.key for c in self.question.candidates]
        speeds = {}
        self.display.start("measuring speed", len(names))
        for i, candidate in enumerate(self.question.candidates):
            config = self.question.config.copy_and_resolve_references()
            config.update(candidate.point)
            speeds[candidate.key] = cost.speed(config, self.display)
            self.display.update(i + 1)
        self.display.finish()
        question = self.question
        made = plan.make(
            speeds,
            names,
            question.minutes,
            question.workers,
            trials=question.trials,
            seeds=question.seeds,
            most_epochs=question.epochs,
        )
        stored = {
            "format": FORMAT,
            "question": asked,
            "plan": made.to_json(),
            "speeds": {name: vars(speed) for name, speed in speeds.items()},
            "revised": False,  # after tuning
            "measuring": self._spent(),  # seconds until here
            "spent": self._spent(),  # seconds, over restarts
            "whole": 0.0,  # seconds until the first report
        }
        self.measuring = stored["measuring"]
        workdir.write_json(path, stored)
        return made, speeds

    def _spent(self) -> float:
        """Seconds since the comparison was begun, without those between its restarts."""
        return self.before + time.perf_counter() - self.began

    def _keep_time(self, **changes: Any) -> None:
        """Records the time that is spent, and changes of the plan."""
        path = self.folder / "plan.json"
        stored = workdir.read_json(path, FORMAT) | {"spent": round(self._spent(), 1)}
        workdir.write_json(path, stored | changes)

    def _revise(self, made: Plan, speeds: dict[str, Speed]) -> Plan:
        """The plan after tuning, which took longer or not so long as expected. Decided once."""
        if self.revised:
            return made
        left = 60 * self.question.minutes - self._spent()
        tuning = plan.tuning_seconds(made, speeds) / self.question.workers
        slower = max((self._spent() - self.measuring) / max(tuning, 1.0), 1.0)
        made = plan.revise(made, speeds, plan.SHARE * left / slower, self.question.workers)
        self._keep_time(plan=made.to_json(), revised=True)
        self.say(f"{duration(made.seconds * slower)} of training to come")
        return made

    def _announce(self, made: Plan) -> None:
        names = ", ".join(CANDIDATES[key].name for key in made.candidates)
        self.say(f"\ncompare   {names}")
        budget = self.question.config.param_budget
        self.say(
            f"plan      {budget:,} parameters each, {made.trials} tuning trials, {made.seeds} "
            f"seeds, {made.epochs} epochs; {duration(made.seconds)} of training on "
            f"{self.question.workers} cores or devices"
        )
        for line in made.left_out:
            self.say(f"left out  {line}: raise --minutes to have it")
        self.say("")

    def _train(self, made: Plan, speeds: dict[str, Speed]) -> tuple[Plan, dict, dict[str, Run]]:
        """The revised plan, all runs by stage, and the best tuning trial of each candidate."""
        question = self.question
        trainings = Trainings(
            self.folder, question.config, question.arguments, made, question.workers, self.display
        )
        self._tell(f"tuning {len(made.candidates)} networks, {made.trials} trials each")
        trained = {"tune": trainings.tune([CANDIDATES[key] for key in made.candidates])}
        tuned = {
            key: best_of([run for run in trained["tune"] if run.key == key], question.task)
            for key in made.candidates
        }
        speeds = {key: _measured(speeds[key], made, key, trained["tune"]) for key in speeds}
        known = len(made.left_out)
        made = self._revise(made, speeds)
        for line in made.left_out[known:]:
            self.say(f"left out  {line}: raise --minutes to have it")
        trainings.plan = made
        primary = question.task.primary
        sign = 1 if question.task.lower_is_better else -1
        order = sorted(tuned, key=lambda key: sign * tuned[key].result["valid"][primary])
        leading = list(dict.fromkeys([*order[:2], REFERENCE]))
        for stage in stages(made, speeds, tuned, leading):
            self._tell(f"training {stage.about}")
            trained[stage.name] = trainings.tables(stage)
        return made, trained, tuned

    def _tell(self, what: str) -> None:
        """Says what begins, and how much of the time is over."""
        minutes = duration(60 * self.question.minutes)
        self.say(f"{what}; {duration(self._spent())} of {minutes} are over")

    def _items(self, run: Run) -> Items | None:
        """The test losses of a run of the tables, kept beside its workdir."""
        if run.result is None:
            return None
        path = run.folder.with_name(run.folder.name + ".npz")
        if path.exists():
            with np.load(path, allow_pickle=False) as stored:
                names = stored["names"].tolist()
                metrics = dict(zip(names, stored["metrics"].tolist(), strict=True))
                by_step = stored["by_step"] if stored["by_step"].size else None
                return Items(stored["total"], metrics, by_step)
        items = self.kind.items(open_run(run.folder))
        by_step = np.zeros(0) if items.by_step is None else items.by_step
        temporary = path.with_name("." + path.name)
        np.savez(
            temporary,
            total=items.total,
            names=np.array(list(items.metrics)),
            metrics=np.array(list(items.metrics.values())),
            by_step=by_step,
        )
        temporary.replace(path)
        return items

    def _costs(self, tuned: dict[str, Run], seeds: Sequence[Run]) -> dict[str, dict]:
        """What each network costs, measured one after the other with nothing else running."""
        path = self.folder / "costs.json"
        if path.exists():
            return workdir.read_json(path, FORMAT)["costs"]
        self.display.start("measuring latency", len(tuned))
        found: dict[str, dict] = {}
        for i, key in enumerate(tuned):
            run = next((r for r in seeds if r.key == key and r.result), tuned[key])
            opened = open_run(run.folder)
            config = opened.config
            batch = self.kind.test()[0]
            found[key] = {
                **cost.latency(opened, batch),
                "update": cost.speed(config, self.display).update,
                "disk_bytes": cost.disk_bytes(run.folder),
            }
            self.display.update(i + 1)
        self.display.finish()
        workdir.write_json(path, {"format": FORMAT, "costs": found})
        return found


def _measured(speed: Speed, made: Plan, key: str, runs: Sequence[Run]) -> Speed:
    """The speed of a candidate as its tuning trials had it, the median."""
    seconds = [run.result["seconds"] for run in runs if run.key == key and run.result]
    if not seconds:
        return speed
    update = statistics.median(seconds) / (made.tuned_for * speed.updates)
    return dataclasses.replace(speed, update=update)
