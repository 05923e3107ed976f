"""The task: batches whose names change, costs, simple answers, training, commands."""

import csv
import io
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUIET, call_module, killed_after, lines_of, outcome, train
from flax import nnx

from rnnx import config as configs
from rnnx import model, tasks
from rnnx.data.stories import Question, Questions
from rnnx.errors import UserError
from rnnx.report.runs import read
from rnnx.tasks import answers, network
from rnnx.tasks import reading as reading_module

PLACES = ("attic", "barn", "cave")
WHO = ("ann", "bob")


def write_babi(
    folder: Path, stories: int = 30, kinds: tuple[int, ...] = (1,), asked: int = 2
) -> Path:
    """Files of bAbI's form: who goes where, and where who is, asked so many times a story."""
    rng = np.random.default_rng(0)
    home = folder / "babi"
    home.mkdir(parents=True)
    for kind in kinds:
        for part, count in (("train", stories), ("test", 8)):
            lines = []
            for _ in range(count):
                where = {}
                for i in range(1, 3 * asked, 3):
                    for k in (0, 1):
                        name = WHO[rng.integers(2)]
                        where[name] = PLACES[rng.integers(3)]
                        lines.append(f"{i + k} {name.title()} went to the {where[name]}.")
                    name = sorted(where)[rng.integers(len(where))]
                    lines.append(f"{i + 2} Where is {name.title()}? \t{where[name]}\t1")
            (home / f"qa{kind}_made_{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


def config_of(folder: Path | str, **fields):
    config = configs.default("reading")
    config.update(
        {
            "corpus": "babi/qa1", "data_dir": str(folder), "cell": "lstm", "hidden_size": 8,
            "init_scale": 0.3, "batch_size": 8, "epochs": 2, "optimizer": "adam",
            "learning_rate": 0.02,
        }
        | fields
    )  # fmt: skip
    return config


def named(count: int) -> list[Question]:
    """Questions about names, the answer the name before the gap's fellow."""
    rng, rows = np.random.default_rng(1), []
    for i in range(count):
        few = 2 + rng.integers(3)
        words = [f"@entity{k} hit @entity{(k + 1) % few} ." for k in range(few)]
        rows.append(
            Question(" ".join(words), f"@placeholder hit @entity{1 % few}", "@entity0", i % 3)
        )
    return rows


def dataset_of(monkeypatch: pytest.MonkeyPatch, config, rows: list[Question], least: int = 1):
    monkeypatch.setattr(reading_module, "read", lambda config, say: Questions(rows, {}, least))
    return tasks.get("reading").load(config, QUIET.print)


# ---------------------------------------------------------------------------- words and names


def test_the_spec_is_of_the_training_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        Question("a a b .", "b a", "x,y", 0, "qa2"),
        Question("a c .", "b", "a", 0, "qa10"),
        Question("d d d d", "d", "z", 2, "qa2"),
    ]
    rows += [row._replace(part=1) for row in rows[:1]]
    found = dataset_of(monkeypatch, config_of(""), rows)
    assert found.spec == {
        "vocabulary": ["<unk>", "a", "b", ".", "c"], "answers": ["a", "x,y"], "entities": 0,
        "kinds": ["qa2", "qa10"],
    }  # fmt: skip
    test = found.splits["test"]
    assert test.each("inputs")[0].tolist() == [0] * 4 and test.whole["targets"].tolist() == [-1]
    whole = dataset_of(monkeypatch, config_of("", answers="vocabulary"), rows)
    assert whole.spec["answers"] == ["<unk>", "a", "b", ".", "c", "x,y"]
    rare = dataset_of(monkeypatch, config_of(""), rows, least=3)
    assert rare.spec["vocabulary"] == ["<unk>", "a", "b"]


def test_names_are_of_all_parts_and_of_answers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        Question("@entity0 hit @entity1 .", "@placeholder hit", "@entity0", 0),
        Question("@entity0 hit @entity1 .", "@placeholder fell", "@entity4", 1),
        Question("@entity0 @entity1 @entity2 @entity3", "@placeholder", "@entity0", 2),
    ]
    found = dataset_of(monkeypatch, config_of(""), rows)
    names = [f"@entity{i}" for i in range(5)]
    assert found.spec["entities"] == 5 and found.spec["answers"] == names
    assert found.spec["vocabulary"][:6] == [*names, "<unk>"]
    assert found.splits["valid"].whole["targets"].tolist() == [4]
    assert found.splits["test"].each("inputs")[0].tolist() == [0, 1, 2, 3]


def told(spec: dict, batch: dict, row: int) -> tuple[str, str, str]:
    """A row of a batch in words."""
    words = spec["vocabulary"]
    passage, question = (
        " ".join(words[i] for i in batch[name][row, : batch[length][row]])
        for name, length in (("inputs", "lengths"), ("question", "question_lengths"))
    )
    return passage, question, spec["answers"][batch["targets"][row]]


def renumbered(*texts: str) -> tuple[str, ...]:
    """Texts with names numbered by first sight."""
    order: dict[str, str] = {}
    return tuple(
        " ".join(
            order.setdefault(w, f"@entity{len(order)}") if w.startswith("@entity") else w
            for w in text.split()
        )
        for text in texts
    )


@pytest.mark.parametrize("kind", ["training", "vocabulary"])
def test_names_change_and_their_questions_stay(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renamed back, each question is what it was: passage, question and answer by one table."""
    rows, config = named(33), config_of("", answers=kind)
    dataset, task = dataset_of(monkeypatch, config, rows), tasks.get("reading")
    train = [row for row in rows if row.part == 0]
    batches = task.batches(config, dataset, "train", "train", slice(None))
    seen: list[dict[int, str]] = []
    for epoch in (0, 1, 0):
        batches.begin(epoch)
        seen.append({})
        for batch in batches:
            for row in np.flatnonzero(batch["weight"] > 0):
                i = int(batch["index"][row])
                texts = told(dataset.spec, batch, row)
                seen[-1][i] = texts[0]
                assert renumbered(*texts) == (train[i].passage, train[i].question, train[i].answer)
    assert seen[0] == seen[2] and len(seen[0]) == 11
    assert sum(seen[0][i] != seen[1][i] for i in seen[0]) > 8
    first = {text.split()[0] for text in seen[0].values()}
    assert len(first) > 2, "the first name of a passage has a number that tells it"
    scored = [
        [told(dataset.spec, batch, 0)[0] for batch in
         task.batches(config_of("", seed=seed), dataset, "test", "full", slice(None))]
        for seed in (0, 1)
    ]  # fmt: skip
    assert scored[0] == scored[1]
    again = {}
    for batch in task.batches(config_of("", seed=1), dataset, "train", "train", slice(None)):
        for row in np.flatnonzero(batch["weight"] > 0):
            again[int(batch["index"][row])] = told(dataset.spec, batch, row)[0]
    assert sum(seen[0][i] != again[i] for i in again) > 8


def test_a_cap_is_on_what_is_scored_and_not_on_what_is_learned_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first question of valid is of another kind of answer than the two after it."""
    one = Question("it fell .", "what fell", "x", 0)
    rows = [one, one, one, *(one._replace(answer=a, part=1) for a in "yxx"), one._replace(part=2)]
    task, whole, capped = tasks.get("reading"), config_of(""), config_of("", eval_tokens=1)
    dataset = dataset_of(monkeypatch, whole, rows)
    for config, count, error in ((whole, 3, 1 / 3), (capped, 1, 1.0)):
        counts = [
            task.batches(config, dataset, split, protocol, slice(None)).targets
            for split, protocol in (("train", "train"), ("valid", "full"))
        ]
        assert counts == [3, count]
        found = task.baselines(config, dataset, "valid")
        assert found == {"most frequent answer": pytest.approx(error)}


def test_the_nearest_name_is_no_answer_to_news(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, task = dataset_of(monkeypatch, config_of(""), named(9)), tasks.get("reading")
    of = {name: list(task.baselines(config_of("", corpus=name), dataset, "test"))
          for name in ("cnn", "cloze/novels")}  # fmt: skip
    assert of["cnn"] == ["most frequent name"]
    assert of["cloze/novels"] == ["most frequent name", "nearest name"]


def test_simple_answers() -> None:
    rows = [
        # Most frequent is @entity1, nearest @entity2; the question has neither.
        Question("@entity0 . @entity1 @entity1 @entity2", "x @placeholder", "@entity1", 1),
        # @entity2 is nearest, and in the question: @entity1 is left.
        Question("@entity0 @entity0 @entity1 @entity2", "@entity2 @placeholder", "@entity1", 1),
        # All names are in the question; of equals the first.
        Question("@entity0 @entity1", "@entity1 @placeholder @entity0", "@entity0", 1),
    ]
    spec = {
        "vocabulary": ["@entity0", "@entity1", "@entity2", "<unk>", "x"],
        "answers": ["@entity0", "@entity1", "@entity2"], "entities": 3, "kinds": [""],
    }  # fmt: skip
    some = tasks.get("reading").sequences(spec, rows)
    assert answers.most_frequent_name(some, 3) == pytest.approx(1 / 3)
    assert answers.nearest_name(some, 3) == pytest.approx(2 / 3)
    assert answers.commonest(some, some.first(2)) == 0
    assert answers.commonest(some, some) == pytest.approx(1 / 3)
    kinds = [row._replace(kind=kind) for row, kind in zip(rows, "aab", strict=True)]
    both = tasks.get("reading").sequences(spec | {"kinds": ["a", "b"]}, kinds)
    assert answers.commonest(both, both) == 0


# ---------------------------------------------------------------------------- costs


def test_a_question_is_scored_as_if_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs, scores and attention do not depend on what else is in the batch, nor on padding."""
    config = config_of("", bidirectional=True, batch_size=4)
    rows = [*named(30), Question("the @entity0 fell .", "who fell", "nobody", 1)]
    rows += [row._replace(part=0) for row in named(1)]
    dataset, task = dataset_of(monkeypatch, config, rows), tasks.get("reading")
    config = network.resolve(config, dataset.spec)
    graphdef, params = model.split(network.build(config, dataset.spec))

    @jax.jit
    def run(batch: dict) -> tuple:
        net = model.merge(graphdef, params)
        return *task.cost(net, batch, (), None)[::2], task.predict(net, batch, ())[0]

    batches = task.batches(config, dataset, "valid", "full", slice(None))
    total = {"error": 0.0, "nll": 0.0}
    alone: dict[int, tuple] = {}
    for batch in batches:
        costs, sums, said = jax.device_get(run(batch))
        for name in total:
            total[name] += float(sums[name][0])
        attention = said["attention"]
        for row in range(len(costs)):
            if not batch["weight"][row]:
                assert costs[row] == 0 and not attention[row].any()
                continue
            t, q = batch["lengths"][row], batch["question_lengths"][row]
            one = {name: a[row : row + 1] for name, a in batch.items()}
            one |= {"inputs": one["inputs"][:, :t], "question": one["question"][:, :q]}
            nats, _, said = jax.device_get(run(one))
            np.testing.assert_allclose(nats[0], costs[row], rtol=1e-5)
            seen, p = said["attention"][0], said["probabilities"][0]
            np.testing.assert_allclose(seen, attention[row, :t], rtol=1e-4)
            assert not attention[row, t:].any() and seen.sum() == pytest.approx(1, rel=1e-5)
            alone[int(batch["index"][row])] = p, int(one["targets"][0])
    assert len(alone) == 11
    wrong = sum(p.argmax() != target for p, target in alone.values())
    nats = sum(-np.log(p[target]) for p, target in alone.values() if target >= 0)
    assert total["error"] == wrong and total["nll"] == pytest.approx(nats, rel=1e-5)
    scores = task.scores({"error": (total["error"], 11.0), "nll": (total["nll"], 10.0)})
    assert scores["questions"] == 11 and scores["error"] == wrong / 11


def test_masks_belong_to_rows() -> None:
    """A row's masks are the same wherever in the mesh it is; each word has one of its own."""
    spec = {"vocabulary": ["<unk>", "a"], "answers": ["a", "b"], "entities": 0, "kinds": [""]}
    config = config_of("", drop_i=0.5, drop_o=0.5, drop_h=0.5, num_layers=2, bidirectional=True)
    task = tasks.get("reading")
    config = network.resolve(config, spec)
    net = network.build(config, spec)
    batch = {"inputs": np.zeros((3, 5), int), "question": np.zeros((3, 2), int)}
    key = jax.random.key(0)
    all_ = task.masks(config, net, key, np.arange(3), batch)
    last = task.masks(config, net, key, np.array([2]), {n: a[2:] for n, a in batch.items()})
    assert all_.passage.i[0].shape == (5, 3, 8) and all_.question.i[0].shape == (2, 3, 8)
    assert all_.passage.i[1].shape == (3, 16) and all_.o.shape == (3, 8)
    np.testing.assert_array_equal(all_.passage.i[0][:, 2:], last.passage.i[0])
    np.testing.assert_array_equal(all_.question.h[1][1][2:], last.question.h[1][1])
    np.testing.assert_array_equal(all_.o[2:], last.o)
    words = np.asarray(all_.passage.i[0])
    assert set(np.unique(words)) == {0.0, 2.0} and (words[0] != words[1]).any()
    assert (words[:2] != np.asarray(all_.question.i[0])).any()
    none = task.masks(config_of(""), net, key, np.arange(3), batch)
    assert none.o is None and none.passage.i is None and none.question.h is None


# ---------------------------------------------------------------------------- runs


def test_a_run_resumes_with_the_same_numbers(tmp_path: Path, every_epoch_saved: None) -> None:
    write_babi(tmp_path, asked=1)
    fields = {"drop_i": 0.2, "drop_h": 0.1, "drop_o": 0.2, "integration": "mi", "epochs": 3}
    config = config_of(tmp_path, **fields)
    whole = train(config, tmp_path / "whole")
    killed_after(config, tmp_path / "cut", 5)
    again = train(config, tmp_path / "cut")
    assert outcome(again) == outcome(whole)
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")


def test_answers_that_training_lacks_have_no_nats(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Question("it fell .", "who fell", str(part), part) for part in range(3)]
    config = config_of("")
    dataset, task = dataset_of(monkeypatch, config, rows), tasks.get("reading")
    net = task.model(task.at_width(config, dataset.spec, 8), dataset.spec, nnx.Rngs(0))
    (batch,) = task.batches(config, dataset, "valid", "full", slice(None))
    _, _, sums = task.cost(net, jax.tree.map(jnp.asarray, batch), (), None)
    assert task.scores(sums) == {"error": 1.0, "questions": 1}


def test_commands_on_stories(tmp_path: Path) -> None:
    """Training beats the commonest answer; scores by task; answers for a file of questions."""
    write_babi(tmp_path, stories=100, kinds=tuple(range(1, 21)), asked=1)
    folder = tmp_path / "run"
    done = call_module(
        "train", "--config=babi:lstm", "--config.corpus=babi/all", f"--config.data_dir={tmp_path}",
        f"--workdir={folder}", "--config.hidden_size=16", "--config.epochs=2",
        "--config.batch_size=64", "--config.learning_rate=0.02", "--config.bidirectional=False",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "most frequent answer" in done.stdout and "wrong answers" in done.stdout
    result = json.loads((folder / "result.json").read_text())
    assert result["test"]["error"] < 0.6 and result["test"]["questions"] == 160
    done = call_module("evaluate", f"--workdir={folder}", "--protocol=by_task")
    assert done.returncode == 0, done.stderr
    line = json.loads((folder / "evaluations.jsonl").read_text())
    each = [line[f"error_qa{i}"] for i in range(1, 21)]
    assert line["error"] == pytest.approx(np.mean(each)) == result["test"]["error"]
    assert read([folder])[0].evaluations["by_task"]["error_qa20"] == each[-1]
    new = tmp_path / "new.txt"
    new.write_text("1 Ann went to the cave.\n2 Where is Ann?\n1 Bob went to the barn.\n2 Bob?\n")
    done = call_module("predict", f"--workdir={folder}", f"--data={new}")
    assert done.returncode == 0, done.stderr
    table = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["question"] for row in table] == ["where is ann", "bob"]
    assert {row["answer"] for row in table} <= set(PLACES)
    assert all(0 < float(row["probability"]) <= 1 for row in table)


@pytest.mark.parametrize(
    "field", [{"tied": True}, {"one_hot": True}, {"drop_x": 0.1}, {"reset_prob": 0.1}]
)
def test_fields_of_texts_are_refused(field: dict) -> None:
    with pytest.raises(UserError, match="leave tied, one_hot"):
        tasks.get("reading").check(config_of("", **field))


def test_a_network_of_names_reads_no_other_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="knows names as @entityN only"):
        tasks.get("reading").unseen(config_of(""), {"entities": 3}, str(tmp_path / "new.txt"))


def test_rows_that_fill_a_batch_are_no_errors_of_an_exported_network() -> None:
    score = tasks.get("reading").function(config_of(""), {}).score
    p = jnp.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    batch = {"targets": jnp.array([0, 0, 1]), "weight": jnp.array([1.0, 1.0, 0.0])}
    assert score(p, batch) == (1, 2)
