"""What the batch scripts of scripts/slurm do on a private cluster.

    scripts/test-slurm [--keep]

Two tasks are one run: their scores equal those of one task to 1e-5. A run that meets its time
limit, scancel, scontrol requeue or a killed task ends complete, with the metrics and the scores of
one that was left alone. Four workers of an array, two of them killed, run every trial once. Errors
that only a person can help are not tried again, and others not for ever.
"""

import argparse
import json
import math
import os
import re
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from conftest import lines_of, write_text
from slurm_cluster import ROOT, Cluster, kill

from rnnx import workdir

CONFIG = """
from rnnx.config import default

def get_config():
    config = default()
    config.update(corpus={corpus!r}, hidden_size=12, batch_size=8, num_steps=50, epochs=99,
                  max_steps=300, init_scale=0.2, learning_rate=0.1, optimizer="adam",
                  max_grad_norm=10.0, drop_h=0.1)
    return config
"""
POINTS = 8  # of the sweep


class Checks:
    """The cluster, and what is shown on it."""

    def __init__(self, cluster: Cluster, folder: Path):
        self.cluster, self.folder = cluster, folder
        corpus = write_text(folder / "weather.txt")
        self.config = folder / "experiment.py"
        self.config.write_text(CONFIG.format(corpus=str(corpus)))
        self.two = f"--nodes={len(cluster.nodes)} --ntasks=2"
        self.quick = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "NPROC": ""}
        self.slow = self.quick | {"RNNX_TASKS": "slowly", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}

    def begin(self, name: str, options: str, *more: str, **env: str) -> int:
        arguments = [f"--config={self.config}", f"--workdir={self.folder / name}", *more]
        env = env or self.slow
        return self.cluster.submit("train.sbatch", *arguments, options=options, **env)

    def scores(self, name: str) -> list[float]:
        result = workdir.read_json(self.folder / name / "result.json")
        return [result[split]["nll"] for split in ("valid", "test")]

    def reached(self, job: int, name: str, steps: int) -> None:
        """Waits for an update of a run."""
        deadline, metrics = time.monotonic() + 600, self.folder / name / "metrics.jsonl"
        while not metrics.exists() or len(metrics.read_text().splitlines()) < steps:
            assert time.monotonic() < deadline, self.cluster.output(job)
            time.sleep(0.2)

    def complete(self, job: int, name: str) -> None:
        """Waits for the end of a run, and compares it with the one left alone."""
        self.cluster.wait(job, "COMPLETED")
        mine, theirs = lines_of(self.folder / name), lines_of(self.folder / "two")
        assert mine == theirs, f"{name}: other metrics, from line {first_other(mine, theirs)}"
        assert self.scores(name) == self.scores("two"), name
        screen = self.cluster.output(job)
        for word in ("[Gloo]", "preemption_notifier", "coordination_service"):
            assert word not in screen, f"{word} of the runtime is on the screen of {name}"

    # ------------------------------------------------------------------ what is shown

    def one_and_two(self) -> str:
        # Rounding grows with every update, and Adam divides by it.
        short = ["--config.max_steps=60", "--config.optimizer=sgd"]
        jobs = [
            self.begin("one", "--ntasks=1 --time=9", *short, **self.quick),
            self.begin("both", f"{self.two} --time=9", *short, **self.quick),
            self.begin("two", f"{self.two} --time=9", **self.quick),
        ]
        for job in jobs:
            self.cluster.wait(job, "COMPLETED")
        assert "Gloo" in self.cluster.runtime(jobs[1])
        assert "Gloo" not in self.cluster.output(jobs[1])
        pairs = zip(self.scores("one"), self.scores("both"), strict=True)
        furthest = max(abs(a - b) for a, b in pairs)
        assert furthest <= 1e-5, furthest
        return f"scores differ by {furthest:.1g} nats at most"

    def time_limit(self) -> str:
        job = self.begin("limit", f"{self.two} --time=2 --signal=TERM@50")
        deadline = time.monotonic() + 600
        while self.cluster.about(job)["Restarts"] == "0":
            assert time.monotonic() < deadline, self.cluster.output(job)
            time.sleep(1)
        # Once is enough: on a busy machine a start would be most of the time each time.
        self.cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=30")
        self.complete(job, "limit")
        starts = int(self.cluster.about(job)["Restarts"]) + 1
        assert starts > 1 and "SIGTERM: saved at step" in self.cluster.output(job)
        return f"{starts} starts"

    def scancel(self) -> str:
        job = self.begin("cancelled", f"{self.two} --time=9")
        self.reached(job, "cancelled", 60)
        self.cluster.call("scancel", str(job))
        self.cluster.wait(job, "CANCELLED")
        while self.cluster.tasks("rnnx.train", str(job)):
            time.sleep(0.2)
        time.sleep(3)
        assert self.cluster.about(job)["JobState"] == "CANCELLED", "it has started itself again"
        at = self.saved(job)
        job = self.begin("cancelled", f"{self.two} --time=9")
        self.complete(job, "cancelled")
        return f"saved at step {at}, the same sbatch completed it"

    def requeue(self) -> str:
        job = self.begin("requeued", f"{self.two} --time=9")
        self.reached(job, "requeued", 60)
        self.cluster.call("scontrol", "requeue", str(job))
        self.complete(job, "requeued")
        return f"saved at step {self.saved(job)}"

    def killed(self) -> str:
        job = self.begin("killed", f"{self.two} --time=9", "--config.checkpoint_every=50")
        self.reached(job, "killed", 120)
        kill(self.cluster.tasks("rnnx.train", str(job))[-1])
        self.complete(job, "killed")
        assert int(self.cluster.about(job)["Restarts"]) >= 1
        told = re.findall(r"rnnx: exit code \d+: queued again", self.cluster.output(job))
        return f"{told[0]}"

    def saved(self, job: int) -> str:
        found = re.search(r"SIGTERM: saved at step (\d+)", self.cluster.output(job))
        assert found, self.cluster.output(job)
        return found[1]

    def hopeless(self) -> str:
        job = self.begin("wrong", "--ntasks=1", "--config.depth=0", **self.quick)
        about = self.cluster.wait(job, "FAILED", "COMPLETED")
        assert (about["ExitCode"], about["Restarts"]) == ("2:0", "0"), about
        assert "depth=0 must be at least 1" in self.cluster.output(job)
        (self.folder / "held").mkdir()
        with workdir.locked(self.folder / "held"):
            job = self.begin("held", "--ntasks=1", **self.quick)
            about = self.cluster.wait(job, "FAILED", "COMPLETED")
        assert (about["ExitCode"], about["Restarts"]) == ("75:0", "3"), about
        assert "3 starts got no further (exit code 75)" in self.cluster.output(job)
        return "exit code 2 ends a job, 75 without progress after 3 more starts"

    def sweep(self) -> str:
        """On the array's workers, which are killed once each has a trial."""
        sizes = ",".join(str(8 + i) for i in range(POINTS))
        arguments = [f"--config={self.config}", f"--workdir={self.folder / 'sweep'}"]
        arguments += [f"--grid=hidden_size={sizes}", "--config.max_steps=40"]
        job = self.cluster.submit(
            "sweep.sbatch", *arguments, options="--array=0-3 --time=9", **self.slow
        )
        ids: dict[int, str] = {}
        deadline = time.monotonic() + 600
        while not (ids and self.running(ids)):
            assert time.monotonic() < deadline, self.cluster.output(f"{job}_0")
            time.sleep(0.3)
            ids = {task: self.cluster.about(f"{job}_{task}")["JobId"] for task in range(4)}
        for task in (1, 2):
            kill(self.cluster.tasks("rnnx.sweep", ids[task])[0])
        for task in range(4):
            self.cluster.wait(f"{job}_{task}", "COMPLETED")
        for task in (1, 2):
            assert "queued again" in self.cluster.output(f"{job}_{task}")
        import optuna

        study = optuna.load_study(
            study_name="sweep", storage=f"sqlite:///{self.folder / 'sweep' / 'sweep.db'}"
        )
        found = [t for t in study.trials if "surplus" not in t.user_attrs]
        assert sorted(t.user_attrs["point"]["hidden_size"] for t in found) == [
            8 + i for i in range(POINTS)
        ]
        assert all(t.state == optuna.trial.TrialState.COMPLETE for t in found)
        for folder in sorted((self.folder / "sweep" / "trials").iterdir()):
            lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
            steps = [line["step"] for line in lines if line["kind"] == "step"]
            assert steps == list(range(1, 41)), folder.name
            assert math.isfinite(workdir.read_json(folder / "result.json")["valid"]["nll"])
        return f"{POINTS} trials once each, two of four workers killed"

    def running(self, ids: dict[int, str]) -> bool:
        """Whether the workers that are to be killed train."""
        return all(self.cluster.tasks("rnnx.train", ids[task]) for task in (1, 2))


def first_other(mine: list, theirs: list) -> int:
    pairs = enumerate(zip(mine, theirs, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(mine), len(theirs)))


def show(name: str, check: Callable[[], str], failed: list[str]) -> None:
    begun = time.monotonic()
    try:
        told = check()
    except Exception:
        failed.append(name)
        told = f"FAILED\n{traceback.format_exc()}"
    print(f"{name:32} {time.monotonic() - begun:5.0f} s  {told}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="keep the cluster's folder")
    keep = parser.parse_args().keep
    folder, failed, begun = Path(tempfile.mkdtemp(prefix="rnnx-slurm-")), [], time.monotonic()
    os.chmod(folder, 0o755)  # munge refuses less
    with Cluster(folder, slots=3 if os.getuid() == 0 else 6) as cluster:
        checks = Checks(cluster, folder)
        print(f"a private cluster of {len(cluster.nodes)} nodes in {folder}", flush=True)
        show("two tasks equal one", checks.one_and_two, failed)
        together = {
            "a time limit": checks.time_limit,
            "scancel, and sbatch again": checks.scancel,
            "scontrol requeue": checks.requeue,
            "a killed task": checks.killed,
            "errors that stay": checks.hopeless,
        }
        threads = [
            threading.Thread(target=show, args=(name, check, failed), daemon=True)
            for name, check in together.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # By itself: its four workers are to be there at the same time.
        show("an array of sweep workers", checks.sweep, failed)
    print(f"{len(failed)} failed, in {time.monotonic() - begun:.0f} s")
    if keep or failed:
        print(f"kept: {folder}")
    else:
        shutil.rmtree(folder)
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
