"""Utterances in, symbols out: features, labels, errors by edit distance, AN4's own files."""

import hashlib
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUIET, ROOT, call_module
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnx import config as configs
from rnnx import model, tasks
from rnnx.data import an4, speech
from rnnx.data.sequences import SequenceBatches
from rnnx.data.speech import BLANK, Utterances, joined, labels_of, scaled, with_deltas
from rnnx.errors import UserError
from rnnx.report.runs import from_file, read, to_file
from rnnx.tasks import augment, decoding, transcripts
from rnnx.tasks.task import Dataset

DATA = Path(os.environ.get("RNNX_DATA", ROOT.parent / "shared" / "data"))
real = pytest.mark.skipif(not (DATA / "an4").is_dir(), reason="AN4 is not there: set RNNX_DATA")

# ---------------------------------------------------------------------------- augmentation


def test_runs_of_bands_and_steps_are_hidden_within_each_utterance() -> None:
    key, rows, lengths = jax.random.key(0), jnp.arange(400), jnp.full(400, 20).at[0].set(1)
    seen = np.asarray(
        augment.hidden(key, rows, lengths, (30, 3 * 2 * 10), bands=10, most=(4, 6))
    ).astype(bool)
    steps, bands = seen.any(axis=2), seen.any(axis=1)
    assert np.array_equal(seen, steps[:, :, None] & bands[:, None])
    assert all((b.reshape(6, 10) == b[:10]).all() for b in bands)
    assert steps[:, 20:].all(), "nothing behind the end"
    for part, most in ((~steps[1:, :20], 6), (~bands[:, :10], 4)):
        count = part.sum(axis=1)
        runs = np.diff(part.astype(int), prepend=0, axis=1) == 1
        assert count.max() == 2 * most and runs.sum(axis=1).max() == 2 and count.min() == 0
        assert abs(count.mean() - most) < 0.2 * most  # two of mean most / 2, less what they share
        assert part.any(axis=0).all()
    # A row has its own, wherever it stands.
    alone = augment.hidden(key, rows[7:8], lengths[7:8], (30, 60), bands=10, most=(4, 6))
    assert np.array_equal(seen[7], alone[0].astype(bool))
    assert len(np.unique(seen.reshape(400, -1), axis=0)) > 350


@pytest.mark.parametrize("drop_i", [0.0, 0.5])
def test_hidden_features_do_not_reach_the_network(drop_i: float) -> None:
    config = configs.default("speech")
    config.update(corpus="an4", mask_bands=5, mask_steps=8, frame_stack=2, num_layers=2,
                  hidden_size=4, drop_i=drop_i)  # fmt: skip
    task = tasks.of(config)
    spec = {"symbols": ["a"], "scaling": {"mean": [0.0] * 78}, "steps_a_symbol": 9.0}
    net = task.model(config, spec, nnx.Rngs(0))
    batch = {"inputs": jnp.ones((3, 10, 78)), "lengths": jnp.full(3, 10)}
    masks = task.masks(config, net, jax.random.key(1), jnp.arange(3), batch)
    assert masks.i[0].shape == (10, 3, 78) and (masks.i[1] is None) == (drop_i == 0)
    hide = masks.i[0].swapaxes(0, 1) == 0
    noise = batch | {"inputs": batch["inputs"] + 9.0 * hide}
    once, again = (decoding.logits(net, b, masks) for b in (batch, noise))
    assert hide.any() and jnp.array_equal(once, again)
    assert not jnp.array_equal(once, decoding.logits(net, batch, None))


# ---------------------------------------------------------------------------- decoding


def distance(a: list[int], b: list[int]) -> int:
    """By the definition, the slow way."""
    table = [[i + j if not i * j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i][j] = min(
                table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (x != y)
            )
    return table[-1][-1]


paths = st.lists(st.integers(0, 3), min_size=7, max_size=7)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(paths, st.lists(st.integers(1, 3), max_size=5), st.integers(0, 7)),
                min_size=3, max_size=3))  # fmt: skip
def test_errors_are_the_edit_distance_of_the_collapsed_path(rows: list) -> None:
    path = np.array([row[0] for row in rows]).T
    lengths = np.array([row[2] for row in rows])
    labels = np.zeros((3, 5), np.int32)
    for to, row in zip(labels, rows, strict=True):
        to[: len(row[1])] = row[1]
        to[len(row[1]) :] = 2  # whatever lies behind the end
    counts = np.array([len(row[1]) for row in rows])
    best, emitted = decoding.greedy(jnp.asarray(np.eye(4)[path]), jnp.asarray(lengths))
    found = decoding.errors(best, emitted, jnp.asarray(labels), jnp.asarray(counts))
    expected = [
        distance(decoding.collapsed(row[0][: row[2]]) if row[2] else [], row[1]) for row in rows
    ]
    assert found.tolist() == expected


def test_a_path_is_collapsed_by_repeats_first_and_then_blanks() -> None:
    assert decoding.collapsed([1, 1, BLANK, 1, 2, 2, BLANK, BLANK, 3]) == [1, 1, 2, 3]
    assert decoding.collapsed([BLANK] * 3) == []


# ---------------------------------------------------------------------------- features


def test_deltas_of_a_line_are_its_slope() -> None:
    """c = 3 t: slope 3, second slope 0, away from the ends."""
    found = with_deltas(np.stack([3.0 * np.arange(20), np.full(20, 5.0)], axis=1))
    assert found.shape == (20, 6)
    np.testing.assert_allclose(found[2:-2, 2], 3.0)
    np.testing.assert_allclose(found[4:-4, 4], 0.0, atol=1e-12)
    assert not found[:, 3].any() and not found[:, 5].any()


def test_frames_are_joined_and_the_last_is_repeated() -> None:
    found = joined(np.arange(10.0).reshape(5, 2), 2)
    assert found.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 8, 9]]
    assert joined(np.ones((4, 3)), 1).shape == (4, 3)


@pytest.mark.parametrize("by", ["train", "speaker", "utterance"])
def test_features_are_scaled_by_what_they_say(by: str) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.normal(k, 1 + k, (50, 2)) for k in range(4)]
    found, spec = scaled(frames, ["a", "a", "b", "b"], by, np.array([True, True, False, False]))
    groups = {"train": [[0, 1]], "speaker": [[0, 1], [2, 3]], "utterance": [[0], [1], [2], [3]]}
    for members in groups[by]:
        whole = np.concatenate([found[i] for i in members])
        np.testing.assert_allclose(whole.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(whole.std(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(spec["mean"], np.concatenate(frames[:2]).mean(axis=0))


def utterances(**changes) -> Utterances:
    some = Utterances(
        ["u1", "u2"], ["a", "b"], ["NO YES", "NO"], [np.ones((9, 2)), np.ones((1, 2))],
        np.array([0, 0]), 100.0, {"NO": ("N", "OW"), "YES": ("Y", "EH", "S")}, {},
    )  # fmt: skip
    return some._replace(**changes)


def test_labels_are_letters_or_phones() -> None:
    assert labels_of(utterances(), "char")[1] == ("N", "O")
    assert labels_of(utterances(), "phone")[0] == ("N", "OW", "Y", "EH", "S")
    with pytest.raises(UserError, match="no dictionary"):
        labels_of(utterances(phones={}), "phone")
    with pytest.raises(UserError, match="'YES' of u1"):
        labels_of(utterances(phones={"NO": ("N",)}), "phone")


# ---------------------------------------------------------------------------- the task


def config_of(**fields):
    config = configs.default("speech")
    config.update({"corpus": "an4", "cell": "lstm", "hidden_size": 8, "batch_size": 2, **fields})
    return config


def test_what_cannot_be_learned_is_told_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """`NO` in one frame has no alignment; a letter that training lacks is an error at best."""
    found = utterances(part=np.array([0, 0]))
    three = found._replace(
        ids=[*found.ids, "u3", "u4"], speakers=list("abcd"), texts=[*found.texts, "NOX", "ON"],
        frames=[*found.frames, np.ones((9, 2)), np.ones((9, 2))], part=np.array([0, 0, 1, 2]),
    )  # fmt: skip
    monkeypatch.setattr(speech, "read", lambda config, say: three)
    task, config = tasks.get("speech"), config_of()
    dataset = task.load(config, QUIET.print)
    assert any("1 utterances are too short" in line and "u2" in line for line in dataset.about)
    assert dataset.spec["symbols"] == sorted(set("NO YES"))
    from flax import nnx

    net = task.model(config, dataset.spec, nnx.Rngs(0))
    (batch,) = task.batches(config, dataset, "train", "full", slice(None))
    costs, _, sums = task.cost(net, batch, (), None)
    assert (costs == 0).tolist() == [False, True]
    assert float(sums["nll"][1]) == 6 and float(sums["cer"][1]) == 8
    (batch,) = task.batches(config, dataset, "valid", "full", slice(None))
    costs, _, sums = task.cost(net, batch, (), None)
    assert not costs.any() and float(sums["cer"][0]) >= 1 and np.isfinite(sums["cer"][0])


def test_errors_of_the_test_part_are_summed_by_speaker() -> None:
    config, rng = configs.default("speech"), np.random.default_rng(0)
    config.update(corpus="an4", hidden_size=4, frame_stack=1)
    task, spec = tasks.of(config), {"symbols": ["a", "b"], "scaling": {"mean": [0.0] * 6}}
    net = task.model(config, spec, nnx.Rngs(0))
    net.output_bias[...] = jnp.array([-1.0, 0.0, 0.0])  # it says something
    net.output_weights[...] = 9.0 * net.output_weights[...]
    frames = [rng.normal(size=(9 + i, 6)).astype(np.float32) for i in range(5)]
    spelled, who = [("a",) * (1 + i % 3) for i in range(5)], ["cy", "al", "cy", "di", "al"]
    (batch,) = SequenceBatches(task.sequences(spec, frames, spelled, who), 8, shuffle=False)
    sums = task.cost(net, batch, (), None)[2]
    wrong, count = map(np.asarray, sums["blocks"])
    assert count.tolist() == [4.0, 4.0, 1.0] and not np.array_equal(wrong, count)
    for g, speaker in enumerate(("al", "cy", "di")):
        own = [i for i in range(5) if who[i] == speaker]
        alone = task.sequences(spec, [frames[i] for i in own], [spelled[i] for i in own])
        (alone,) = SequenceBatches(alone, 8, shuffle=False)
        errors, symbols = task.cost(net, alone, (), None)[2]["cer"]
        assert wrong[g] == errors and count[g] == symbols


def write_an4(home: Path) -> Path:
    """A corpus of that form: 102 training utterances of two speakers, one each of two others."""
    etc = home / "an4" / "etc"
    etc.mkdir(parents=True)
    (etc / "an4.dic").write_text("NO   N OW\nNO(2)   N AH\nYES  Y EH S\n")
    train = [("bo", i) for i in range(52)] + [("al", i) for i in range(100, 150)]
    for part, folder, names in (
        ("train", "an4_clstk", train),
        ("test", "an4test_clstk", [("cy", 1), ("di", 2)]),
    ):
        files, lines = [], []
        for speaker, i in names:
            name = f"an{i:03d}-{speaker}-b"
            path = home / "an4" / "feat" / folder / speaker / f"{name}.mfc"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.full((20, 13), i, ">f4").tobytes()
            path.write_bytes((20 * 13).to_bytes(4, "big") + values)
            files.append(f"{folder}/{speaker}/{name}")
            lines.append(f"<s> {'YES' if i % 2 else 'NO YES'} </s> ({name})")
        (etc / f"an4_{part}.fileids").write_text("\n".join(files) + "\n")
        (etc / f"an4_{part}.transcription").write_text("\n".join(lines) + "\n")
    return home


def test_an4_is_read_and_its_first_hundred_validate(tmp_path: Path) -> None:
    found = Utterances(*an4.read(str(write_an4(tmp_path))))
    assert np.bincount(found.part).tolist() == [2, 100, 2]
    assert {found.ids[i] for i in np.flatnonzero(found.part == 0)} == {"an050-bo-b", "an051-bo-b"}
    assert found.texts[0] == "NO YES" and found.speakers[0] == "bo"
    assert (found.frames[51] == 51).all() and found.frames[51].shape == (20, 13)
    assert found.phones == {"NO": ("N", "OW"), "YES": ("Y", "EH", "S")}
    again = an4.read(str(tmp_path))[-1]
    assert again == found.sums and len(found.sums["feat"]) == len(hashlib.sha256().hexdigest())


@pytest.mark.parametrize(
    "harm, told",
    [
        (lambda etc, feat: (etc / "an4_train.fileids").unlink(), "an4 is not there: put etc"),
        (lambda etc, feat: (etc / "an4.dic").unlink(), "an4.dic is not there"),
        (lambda etc, feat: (feat / "an050-bo-b.mfc").unlink(), "an050-bo-b.mfc is not there"),
        (lambda etc, feat: (feat / "an050-bo-b.mfc").write_bytes(b"\0\0\0\x0d\0"), "is cut off"),
        (
            lambda etc, feat: (etc / "an4_test.transcription").write_text("YES (an001-cy-b)\nNO\n"),
            "'NO' is not of",
        ),
        (lambda etc, feat: (etc / "an4_test.fileids").write_text("a\n"), "1 files and 2 texts"),
    ],
)
def test_damaged_sets_are_told_in_one_line(harm, told: str, tmp_path: Path) -> None:
    home = write_an4(tmp_path) / "an4"
    harm(home / "etc", home / "feat" / "an4_clstk" / "bo")
    with pytest.raises(UserError, match=told):
        an4.read(str(tmp_path))


def test_the_command_trains_on_it(tmp_path: Path) -> None:
    write_an4(tmp_path)
    done = call_module(
        "train", "--config=an4", f"--config.data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}",
        "--config.hidden_size=8", "--config.num_layers=1", "--config.epochs=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "character error rate" in done.stdout and "silence" in done.stdout
    test = json.loads((tmp_path / "run" / "result.json").read_text())["test"]
    wrong, count = test["blocks"]
    assert len(count) == 2 and sum(count) == test["symbols"]
    assert sum(wrong) == pytest.approx(test["cer"] * test["symbols"])
    (line,) = read([tmp_path / "run"])
    to_file([line], tmp_path / "data.json")
    assert from_file(tmp_path / "data.json")[0].blocks == line.blocks == [wrong, count]
    done = call_module("evaluate", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0 and "blocks" not in done.stdout, done.stderr


@real
def test_an4_has_its_published_numbers_of_words_and_characters() -> None:
    found = Utterances(*an4.read(str(DATA)))
    test = [text for text, part in zip(found.texts, found.part, strict=True) if part == 2]
    assert len(test) == 130
    assert sum(len(text.split()) for text in test) == 773
    assert sum(len(text) for text in test) == 2_565
    assert np.bincount(found.part).tolist() == [848, 100, 130]


def test_features_are_scaled_by_the_training_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    found = utterances(
        ids=list("abc"), speakers=list("abc"), texts=["NO"] * 3, part=np.array([0, 1, 2]),
        frames=[level + rng.normal(size=(9, 2)) for level in (0, 100, 100)],
    )  # fmt: skip
    monkeypatch.setattr(speech, "read", lambda config, say: found)
    dataset = tasks.get("speech").load(config_of(scale_by="train", frame_stack=1), QUIET.print)
    assert abs(np.mean(dataset.spec["scaling"]["mean"])) < 1


def test_augmentation_and_dropout_of_the_first_layer_go_together() -> None:
    task = tasks.get("speech")
    config = config_of(mask_bands=5, mask_steps=8, frame_stack=2, num_layers=2, drop_i=0.5)
    spec = {"symbols": ["a"], "scaling": {"mean": [0.0] * 78}}
    net = task.model(config, spec, nnx.Rngs(0))
    batch = {"inputs": jnp.ones((40, 10, 78)), "lengths": jnp.full(40, 10)}

    def first() -> np.ndarray:
        masks = task.masks(config, net, jax.random.key(1), jnp.arange(40), batch)
        return np.asarray(masks.i[0])

    assert set(np.unique(first())) == {0.0, 2.0}
    config.drop_i = 0.0
    bands = first().reshape(10, 40, 6, 13)  # values, first and second differences of two frames
    assert (bands == bands[:, :, :1]).all() and set(np.unique(bands)) == {0.0, 1.0}


def test_errors_of_what_is_decoded() -> None:
    """Frames of padding are not decoded; a symbol that training lacks is an error; what is heard
    in silence is inserted."""
    task, config = tasks.get("speech"), config_of(frame_stack=1, labels="char")
    spec = {"symbols": ["a", "b"], "scaling": {"mean": [0.0] * 6}}
    graphdef, params = model.split(task.model(config, spec, nnx.Rngs(0)))
    rng, seen = np.random.default_rng(0), []

    def errors(spelled: list[tuple[str, ...]], lengths: tuple[int, ...]) -> dict:
        frames = [rng.normal(size=(n, 6)).astype(np.float32) for n in lengths]
        rows = {"test": task.sequences(spec, frames, spelled)}
        dataset = Dataset("x", rows, spec, {}, (0, 0, len(lengths)))

        def decode(log_p: np.ndarray) -> list[int]:
            seen.append(len(log_p))
            return [1, 2]

        return transcripts.score(graphdef, params, config, dataset, "test", QUIET, decode=decode)

    # "a" heard as "ab", "a?" as "ab", silence as "ab": 1 + 1 + 2 of 3 symbols
    assert errors([("a",), ("a", "z"), ()], (9, 6, 4)) == {"cer": (4, 3), "wer": (3, 2)}
    assert sorted(seen) == [4, 6, 9]
    with pytest.raises(UserError, match="no recording of the test part"):
        errors([()], (4,))
