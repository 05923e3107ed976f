"""The seam's own promises: which task a config means, and tasks that come from elsewhere."""

import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import call_module, words

from rnnx import config as configs
from rnnx import tasks
from rnnx.config import Field
from rnnx.dropout import Masks
from rnnx.errors import UserError
from rnnx.tasks.language import Language
from rnnx.tasks.rolls import Rolls
from rnnx.tasks.task import Task, Unit


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    fields = dict(configs.FIELDS)
    yield
    configs.FIELDS.clear()
    configs.FIELDS.update(fields)


def config_of(**fields):
    config = configs.default()
    config.update(fields)
    return config


# ---------------------------------------------------------------------------- of a config


@pytest.mark.parametrize(
    "fields, kind",
    [
        ({}, Language),
        ({"corpus": "/some/text.txt"}, Language),
        ({"corpus": "jsb"}, Rolls),
        ({"task": "rolls"}, Rolls),
        ({"task": "language", "corpus": "jsb"}, Language),  # what is named comes first
    ],
)
def test_a_config_names_its_task_or_its_corpus_does(fields: dict, kind: type) -> None:
    found = tasks.of(config_of(**fields))
    assert type(found) is kind
    assert tasks.of(config_of(**fields).to_dict()) is found  # a plain dict too; made once


@pytest.mark.parametrize(
    "name, told",
    [("langage", "did you mean language?"), ("xyz", "known: language, rolls, forecast")],
)
def test_an_unknown_task_is_refused_with_the_nearest(name: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        tasks.of(config_of(task=name))
    assert f"unknown task {name!r}; {told}" in str(error.value)
    assert "RNNX_TASKS" in str(error.value) and "\n" not in str(error.value)


# ---------------------------------------------------------------------------- from elsewhere


def test_a_registered_task_has_its_fields() -> None:
    task = Task()
    with pytest.raises(UserError, match="unknown config field 'span'"):
        configs.validate(config_of(span=2))
    tasks.register("mine", task, fields={"span": Field(24, "steps ahead", low=1)})
    config = configs.default("mine")
    assert config.span == 24 and "span" not in configs.default()
    assert tasks.of(config) is task
    configs.validate(config)
    config.span = 0
    with pytest.raises(UserError, match="span=0 must be at least 1"):
        configs.validate(config)
    config.span = 3
    assert tasks.config_from_json(configs.to_json(config), "config.json").span == 3


@pytest.mark.parametrize(("name", "field"), [("language", "span"), ("mine", "horizon")])
def test_a_task_takes_no_name_of_rnnx_s_own(name: str, field: str) -> None:
    with pytest.raises(ValueError, match=f"'{'language' if name == 'language' else field}' is a"):
        tasks.register(name, Task(), {field: Field(1, "steps")})
    assert configs.FIELDS.get("horizon").tasks == ("forecast",)


def test_a_workdir_of_an_unknown_task_is_told_as_that() -> None:
    """Before its fields, which are unknown too."""
    stored = configs.to_json(config_of()) | {"task": "mine", "span": 3}
    with pytest.raises(UserError, match=r"config.json: unknown task 'mine'.*RNNX_TASKS"):
        tasks.config_from_json(stored, "config.json")


def test_modules_that_rnnx_tasks_names_are_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("seamone", "seamtwo"):
        (tmp_path / f"{name}.py").write_text(
            "from rnnx import tasks\nfrom rnnx.tasks.task import Task\n"
            f"tasks.register({name!r}, Task())\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RNNX_TASKS", "seamone,seamtwo")
    call_module("sample", "--workdir=nowhere")  # as any command
    assert {"seamone", "seamtwo"} <= tasks.TASKS.keys()
    for name in ("seamone", "seamtwo"):
        del sys.modules[name]


@pytest.mark.parametrize(
    "content, told",
    [
        (None, "ModuleNotFoundError: No module named 'seambad'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def f(:\n", "SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_in_one_line(
    content: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "seambad.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RNNX_TASKS", "seambad")
    done = call_module("sample", "--workdir=nowhere")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"error: cannot import seambad, which RNNX_TASKS names: {told}" in done.stderr


# ---------------------------------------------------------------------------- what a task may leave


def test_the_direction_of_a_score_decides_what_is_better() -> None:
    lower, higher = Task(), Task()
    higher.lower_is_better = False
    assert lower.better(1.0, 2.0) and not lower.better(2.0, 1.0) and not lower.better(1.0, 1.0)
    assert higher.better(2.0, 1.0) and not higher.better(1.0, 2.0) and not higher.better(1.0, 1.0)
    assert (lower.best([2.0, 1.0, 3.0]), higher.best([2.0, 1.0, 3.0])) == (1.0, 3.0)


def test_scores_are_means_with_what_they_are_over() -> None:
    task = Task()
    task.primary, task.counted = "mse", "sequences"
    found = task.scores({"mse": (6.0, 4), "right": (1, 2)})
    assert found == {"mse": 1.5, "right": 0.5, "sequences": 4}


def test_a_unit_shows_a_score() -> None:
    assert Unit("accuracy", "acc", 1, lambda score: 100 * score).show(0.98765) == "acc 98.8"
    assert Task().unit(config_of()).show(1234.56789) == "nll 1,234.5679"


@pytest.mark.parametrize("field", ["tied", "one_hot", "drop_x", "reset_prob"])
def test_what_only_texts_have_is_refused_elsewhere(field: str) -> None:
    Task().check(config_of())
    value = True if isinstance(configs.FIELDS[field].default, bool) else 0.1
    with pytest.raises(UserError, match=field):
        Task().check(config_of(**{field: value}))


def test_a_width_leaves_the_config_it_comes_from_alone() -> None:
    config = config_of(level="word", hidden_size=5)
    for task in (Task(), Language()):
        assert task.at_width(config, words(7), 9).hidden_size == 9
        assert config.hidden_size == 5 and config.embed_size == 0


def test_a_network_needs_no_stack_where_nothing_drops() -> None:
    key, rows = jax.random.key(0), np.arange(2)
    assert Task().masks(config_of(), object(), key, rows, {}) == Masks()
    with pytest.raises(AttributeError, match="stack"):
        Task().masks(config_of(drop_h=0.1), object(), key, rows, {})


def test_a_share_of_training_is_of_texts_not_of_piano_rolls() -> None:
    for task in (Language(), Rolls()):
        task.check(config_of())
    Language().check(config_of(fraction=0.5))
    for fraction in (0.0, 70.0):
        with pytest.raises(UserError, match="above 0 and at most 1"):
            Language().check(config_of(fraction=fraction))
    with pytest.raises(UserError, match="leave fraction at 1"):
        Rolls().check(config_of(fraction=0.5))
