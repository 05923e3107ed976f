"""The page of runs that are still trained."""

import json
import math
import os
import re
import shutil
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import call_module, killed_after, small, train
from test_report import run

from rnnx import workdir
from rnnx.report import live
from rnnx.report.state import QUIET, Overview, Stand, overview


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of five: one run complete, one in its third epoch, one failed, two not begun."""
    from conftest import write_text

    folder = tmp_path_factory.mktemp("study")
    text = write_text(folder / "weather.txt")
    train(small(text), folder / "trials" / "000,depth=2")
    other = small(text, seed=1, checkpoint_every=5)
    killed_after(other, folder / "trials" / "001,depth=2,seed=1", 60)
    trials = {"000,depth=2": ["running", ""], "002,x=<b>": ["failed", "no <depth>"]}
    told = {"format": 1, "total": 5, "trials": trials}
    workdir.write_json(folder / workdir.SWEEP, told)
    return folder


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    study = Path(shutil.copytree(made, tmp_path / "study"))
    (study / "trials" / "001,depth=2,seed=1" / "metrics.jsonl").touch()  # just now
    return study


class Parts(HTMLParser):
    """Addresses that a page would load, and whether its elements are closed."""

    def __init__(self, page: str):
        super().__init__()
        self.loads, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.loads += [v for k, v in attrs if k in ("src", "href", "data")]
        if tag not in ("meta", "wbr", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_what_runs_what_is_finished_and_when_the_end_is_expected(study: Path) -> None:
    found = overview([study])
    one, two = found.stands
    assert (one.state, one.share, one.left) == ("done", 1.0, 0.0)
    assert one.best == one.run.scores["valid"] and one.took > 0
    assert two.state == "running" and two.updates == one.updates == one.step
    assert 60 / two.updates <= two.share < 1 and two.best == min(two.run.valid)
    assert two.left == pytest.approx(two.seconds / two.step * (two.updates - two.step))
    assert found.total == 5 and found.waiting == 2 and not found.over
    assert found.sentence() == "1 of 5 runs finished, 1 running, 1 failed, 2 waiting"
    assert found.left == pytest.approx(two.left + 2 * one.took)
    assert re.search(r"; end expected .*\d\d:\d\d, in [^,;]* s\.$", live.sentence(found))


def test_the_page_holds_everything_and_escapes_it(study: Path) -> None:
    page = live.page(overview([study]), "a <study>", 10)
    parts = Parts(page)
    assert not parts.loads and not parts.open and "http:" not in page and "https:" not in page
    assert 'http-equiv="refresh" content="10"' in page and "<study>" not in page
    assert page.count("<polyline") == 2 and "Valid bits per character" in page
    for words in ("000,<wbr>depth=2", "done in", "until ", "002,<wbr>x=&lt;b&gt;", "no &lt;depth"):
        assert words in page
    assert "refresh" not in live.page(overview([study]), "study", 0)


def test_a_run_without_a_sign_of_life_is_quiet(study: Path) -> None:
    folder = study / "trials" / "001,depth=2,seed=1"
    long_ago = time.time() - QUIET - 60
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (long_ago, long_ago))
    found = overview([study])
    assert found.stands[1].state == "quiet" and found.left is None
    assert "no sign of life for 6 min" in live.page(found, "study", 0)


def test_failures_show_their_reason(study: Path) -> None:
    trials = {"001,depth=2,seed=1": ["failed", "no <depth>"], "000,depth=2": ["done", ""]}
    workdir.write_json(study / workdir.SWEEP, {"format": 1, "total": 2, "trials": trials})
    found = overview([study])
    assert found.over and found.sentence() == "1 of 2 runs finished, 1 failed"
    assert "no &lt;depth&gt;" in live.page(found, "study", 0)


def test_files_that_are_being_written_do_no_harm(study: Path) -> None:
    metrics = study / "trials" / "001,depth=2,seed=1" / "metrics.jsonl"
    before = overview([study]).stands[1]
    with metrics.open("a") as file:
        file.write('{"kind": "epoch", "st')
    (study / "trials" / "002").mkdir()
    (study / "trials" / "002" / "config.json").write_text("{")
    (study / workdir.SWEEP).write_text("")
    found = overview([study])
    assert len(found.stands) == 2 and found.stands[1].step == before.step


def stand(state: str, best: float, curve: tuple[float, ...] = (), share: float = 0.0) -> Stand:
    """A run of Penn Treebank characters, in bits."""
    one = run(f"{state} {best}", corpus="ptb_char", level="char")
    one.valid = [bits * math.log(2) for bits in curve or (best,)]
    one.epoch = list(range(1, len(one.valid) + 1))
    one.scores = {"valid": best * math.log(2)} if state == "done" else {}
    return Stand(one, Path(), state, round(100 * share), 100, 9.0, 1.0, 9.0)


def page_of(*stands: Stand, total: int = 0) -> str:
    return live.page(Overview(list(stands), Counter(), [], total or len(stands), 0.0), "study", 0)


def test_what_runs_stands_first_and_the_finished_last_by_their_scores() -> None:
    stands = [stand("failed", 1.0), stand("done", 1.6), stand("done", 1.2), stand("running", 1.9)]
    names = re.findall(r"<b>(.*?)</b>", page_of(*stands))
    assert names == ["running 1.9", "failed 1.0", "done 1.2", "done 1.6"]


def test_the_bar_is_the_share_of_all_runs_that_is_over() -> None:
    """A failed one is over; of one that runs the share that is done counts; two are to come."""
    stands = [stand("done", 1.5), stand("failed", 1.6), stand("running", 1.7, share=0.5)]
    page = page_of(*stands, total=5)
    assert "<title>50% study</title>" in page and '"all"><i style="width:50.0%"' in page


def test_the_end_is_told_by_the_clock_and_the_day_if_it_is_another() -> None:
    now = time.mktime((2026, 3, 5, 12, 0, 0, 0, 0, -1))
    half = stand("running", 1.0, share=0.5)
    half.seconds = 3 * 3600.0
    assert live._told(half, now) == "50%, until 15:00"
    half.seconds = 24 * 3600.0
    assert re.fullmatch(r"50%, until \S+ 06 \S+, 12:00", live._told(half, now))


def test_curves_fall_with_their_scores_by_epoch() -> None:
    page = page_of(stand("running", 1.0, (3.0, 2.0, 1.0)), stand("done", 1.5, (2.0, 1.5)))
    lines = [
        [tuple(map(float, point.split(","))) for point in points.split()]
        for points in re.findall(r'points="([^"]*)"', page)
    ]
    done, running = lines  # what runs lies on top
    assert [x for x, _ in done] == [x for x, _ in running[:2]]
    right, middle = running[2][0], running[1][0]
    assert right - middle == pytest.approx(middle - running[0][0], abs=0.1)
    assert running[0][1] < running[1][1] < running[2][1]  # SVG counts from above
    assert done[0][1] == running[1][1]
    assert done[1][1] == pytest.approx((running[1][1] + running[2][1]) / 2, abs=0.1)


def test_nothing_yet(tmp_path: Path) -> None:
    assert "No runs yet." in live.page(overview([tmp_path]), "empty", 10)


def test_the_command_watches_until_all_have_ended(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = study / "report" / "status.html"
    done = call_module("report", f"--workdir={study}", "--html")
    assert done.returncode == 0 and "refresh" not in page.read_text(), done.stderr
    pages = []

    def wait(seconds: float) -> None:
        pages.append(page.read_text())
        assert not list(page.parent.glob("*.tmp"))
        if len(pages) == 2:
            trials = {p.name: ["failed", ""] for p in (study / "trials").iterdir()}
            told = {"format": 1, "total": 2, "trials": trials}
            (study / workdir.SWEEP).write_text(json.dumps(told))

    monkeypatch.setattr(time, "sleep", wait)
    done = call_module("report", f"--workdir={study}", "--watch")
    assert done.returncode == 0, done.stderr
    assert len(pages) == 2 and "refresh" in pages[0] and "refresh" not in page.read_text()
    assert len(done.stdout.splitlines()) == 3 and "1 of 2 runs finished" in done.stdout
    done = call_module("report", f"--workdir={study / 'nosuch'}", "--html")
    assert done.returncode == 2 and "no folder" in done.stderr
