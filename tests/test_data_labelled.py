"""Labelled sequences: the archives' files, long tables, C-MAPSS; parts, gaps, refusals."""

import os
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from data_files import line, real, write
from hypothesis import given
from hypothesis import strategies as st

from rnnx.data.labelled import read_cmapss, read_labelled
from rnnx.data.parting import part_classes
from rnnx.errors import UserError


def rows(count=40, length=12, seed=0, classes="ab"):
    """Labels and sequences, one row each."""
    rng = np.random.default_rng(seed)
    return [
        (classes[i % len(classes)], (rng.normal(size=length) + i % len(classes)).round(4).tolist())
        for i in range(count)
    ]


def tsv(path, data):
    path.write_text("".join("\t".join([label, *map(str, x)]) + "\n" for label, x in data))
    return path


def table(count=20, length=6, target=lambda i, t: "ab"[i % 2]):
    """A long table; ids in the order of their sequences."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"id": f"s{i}", "t": t, "x": rng.normal(), "z": rng.normal(), "y": target(i, t)}
            for i in range(count)
            for t in range(length)
        ]
    )


# ------------------------------------------------------------------------------------- real sets


@pytest.mark.parametrize(
    "name, train, test, length, classes",
    [
        ("SyntheticControl", 300, 300, 60, 6),
        ("MelbournePedestrian", 1194, 2439, 24, 10),
        ("SwedishLeaf", 500, 625, 128, 15),
        ("ItalyPowerDemand", 67, 1029, 24, 2),
        ("ECG200", 100, 100, 96, 2),
    ],
)
def test_ucr(name, train, test, length, classes):
    data, notes, _ = read_labelled(real(f"ucr/{name}/{name}_TRAIN.tsv"))
    assert np.bincount(data.part).tolist()[2] == test and (data.part < 2).sum() == train
    assert {x.shape for x in data.inputs} == {(length, 1)} and len(data.classes) == classes
    assert set(data.labels[data.part == 1]) == set(range(classes))
    assert any(f"{name}_TEST.tsv" in text for text in notes)
    raw = np.loadtxt(real(f"ucr/{name}/{name}_TEST.tsv"))
    np.testing.assert_array_equal(
        [float(data.classes[i]) for i in data.labels[data.part == 2]], raw[:, 0]
    )
    late = [x[:, 0] for x, p in zip(data.inputs, data.part, strict=True) if p == 2]
    np.testing.assert_array_equal(np.stack(late), raw[:, 1:].astype(np.float32))


def test_japanese_vowels():
    data, _, warnings = read_labelled(real("ucr/JapaneseVowels/JapaneseVowels_TRAIN.ts"))
    lengths = [len(x) for x in data.inputs]
    assert (min(lengths), max(lengths)) == (7, 29) and {x.shape[1] for x in data.inputs} == {12}
    assert np.bincount(data.part).tolist() == [216, 54, 370] and not warnings
    assert data.classes == tuple("123456789") and len(data.columns) == 12
    early = Counter(data.labels[data.part < 2].tolist())
    assert set(early.values()) == {30}
    assert data.inputs[0][0, :2].tolist() == np.float32([1.860936, -0.207383]).tolist()


def test_cmapss():
    data, notes, _ = read_cmapss(real("cmapss"))
    part = data.part
    assert np.bincount(part).tolist() == [80, 20, 100] and len(data.columns) == 17
    assert "sensor 1" not in data.columns and "sensor 2" in data.columns
    assert any("setting 3, sensor 1," in text for text in notes)
    rul = np.loadtxt(real("cmapss/RUL_FD001.txt"))
    np.testing.assert_array_equal(data.labels[part == 2], np.minimum(rul, 125))
    for x, left, p, last in zip(data.inputs, data.steps, part, data.labels, strict=True):
        assert len(x) == len(left) and left[-1] == last and left.max() <= 125
        below = left[left < 125]
        np.testing.assert_array_equal(np.diff(below), -1)
        assert (last == 0) == (p == 0) or p != 0
    assert (data.labels[part == 1] > 0).sum() >= 15  # cut before the end
    full, _, _ = read_cmapss(real("cmapss/train_FD001.txt"), cap=10**9)
    raw = np.loadtxt(real("cmapss/train_FD001.txt"))
    lives = Counter(raw[:, 0].astype(int).tolist())
    for name, x, left, p in zip(full.ids, full.inputs, full.steps, full.part, strict=True):
        if p < 2:
            assert left[0] == lives[int(name.split()[1])] - 1
            assert p == 1 or len(x) == lives[int(name.split()[1])]
    again, _, _ = read_labelled(real("cmapss"), kind="regress")
    np.testing.assert_array_equal(again.part, part)
    assert (read_cmapss(real("cmapss"), seed=1)[0].part != part).any()


def test_cycles_are_put_in_order_and_lives_for_validation_are_not_cut_short(tmp_path):
    table = np.column_stack([
        np.repeat(np.arange(1, 41), 30), np.tile(np.arange(1, 31), 40),
        np.random.default_rng(0).normal(size=(1200, 24)),
    ])  # fmt: skip
    np.savetxt(tmp_path / "RUL_FD009.txt", np.arange(40))
    found = []
    for rows in (np.arange(1200), np.random.default_rng(1).permutation(1200)):
        for name in ("train", "test"):
            np.savetxt(tmp_path / f"{name}_FD009.txt", table[rows])
        found.append(read_cmapss(tmp_path, valid=0.5)[0])
    for a, b in zip(found[0].inputs, found[1].inputs, strict=True):
        np.testing.assert_array_equal(a, b)
    lengths = [len(x) for x, p in zip(found[0].inputs, found[0].part, strict=True) if p == 1]
    assert min(lengths) >= 20 and len(set(lengths)) > 5


def test_cmapss_constants_are_those_of_the_training_part(tmp_path):
    rng = np.random.default_rng(0)

    def engines(count, changed):
        full = [
            np.column_stack([np.full(30, i), np.arange(1, 31), rng.normal(size=(30, 24))])
            for i in range(1, count + 1)
        ]
        whole = np.concatenate(full)
        whole[:, 5] = changed
        return whole

    np.savetxt(tmp_path / "train_FD009.txt", engines(5, 1.0))
    np.savetxt(tmp_path / "test_FD009.txt", engines(2, rng.normal(size=60)))
    np.savetxt(tmp_path / "RUL_FD009.txt", [5, 200])
    data, notes, _ = read_cmapss(tmp_path)
    assert len(data.columns) == 23 and "left out: sensor 1" in notes[0]
    assert data.labels[-2:].tolist() == [5, 125]
    np.savetxt(tmp_path / "RUL_FD009.txt", [5])
    with pytest.raises(UserError, match="1 rows, but there are 2 test engines"):
        read_cmapss(tmp_path)
    (tmp_path / "train_FD008.txt").write_text("1 2\n")
    with pytest.raises(UserError, match="one train_FD") as error:
        read_cmapss(tmp_path)
    assert line(error)
    with pytest.raises(UserError, match="2 columns, C-MAPSS has 26"):
        read_cmapss(tmp_path / "train_FD008.txt")
    with pytest.raises(UserError, match="is not there"):
        os.unlink(tmp_path / "test_FD009.txt")
        read_cmapss(tmp_path / "train_FD009.txt")


# --------------------------------------------------------------------------------------- formats


def test_rows_of_unequal_length_and_their_gaps(tmp_path):
    data = [(str(i % 2), [1.0 + i, 2.0, 3.0 + i]) for i in range(20)]
    data[0] = ("0", ["NaN", 5.0, "NaN", 7.0, "NaN", "NaN"])
    data[1] = ("1", ["NaN"] * 6)
    found, notes, _ = read_labelled(tsv(tmp_path / "x.tsv", data))
    assert len(found.inputs) == 19 and any("1 sequences have no values" in n for n in notes)
    assert [len(x) for x in found.inputs[:2]] == [4, 3]
    train = np.concatenate([x for x, p in zip(found.inputs, found.part, strict=True) if p == 0])
    if found.part[0] == 0:  # its own gaps are not part of the mean
        train = np.concatenate([[[5], [7]], train[4:]])
    assert found.inputs[0][1:, 0].tolist() == [5, 5, 7]
    assert found.labels[:3].tolist() == [0, 0, 1]  # without that of the empty one
    np.testing.assert_allclose(found.inputs[0][0, 0], train.mean(), rtol=1e-6)


def test_labels_of_whole_numbers_lose_their_decimals(tmp_path):
    data = [(label, x) for (_, x), label in zip(rows(30), ["1.0000000e+00", "-1", "10"] * 10,
                                                strict=True)]  # fmt: skip
    found, _, _ = read_labelled(tsv(tmp_path / "x.tsv", data))
    assert found.classes == ("-1", "1", "10") and found.labels[:3].tolist() == [1, 0, 2]


def test_classes_are_in_the_order_of_numbers_and_of_text(tmp_path):
    for names in (("-2", "9", "10"), ("10", "9a", "NA")):
        data = [(names[i % 3], x) for i, (_, x) in enumerate(rows(30))]
        assert read_labelled(tsv(tmp_path / "x.tsv", data))[0].classes == names
    frame = table(target=lambda i, t: ("NA", "b")[i % 2])  # a name in a table, too
    found, _, _ = read_labelled(write(tmp_path, frame), target="y", group="id", time="t")
    assert found.classes == ("NA", "b")


TS = """#comment
@problemName x
@timeStamps false
@univariate false
@dimensions 2
@{kind} true{classes}
@data
{body}
"""


def ts(path, body, kind="classLabel", classes=" a b"):
    path.write_text(TS.format(kind=kind, classes=classes, body=body))
    return path


def test_ts(tmp_path):
    body = "\n".join(f"{i},2,?:3,?,5:{'ab'[i % 2]}" for i in range(20)) + "\n7:8:a"
    found, notes, _ = read_labelled(ts(tmp_path / "x.ts", body))
    assert found.classes == ("a", "b") and len(found.inputs) == 21
    np.testing.assert_array_equal(found.inputs[3], [[3, 3], [2, 3], [2, 5]])
    np.testing.assert_array_equal(found.inputs[-1], [[7, 8]])
    assert any("40 of 122 values are missing" in text for text in notes)
    body = "\n".join(f"{i},2:3,4:{i / 2}" for i in range(20))
    found, _, _ = read_labelled(ts(tmp_path / "x.ts", body, "targetLabel", ""), kind="regress")
    assert found.classes == () and found.labels.tolist() == [i / 2 for i in range(20)]


@pytest.mark.parametrize(
    "body, words",
    [
        ("1,2:3,4:5,6:a", "3 dimensions, expected 2"),
        ("1,2:3:a", "dimensions of 2 and other lengths"),
        ("1,x:3,4:a", "sequence 1: 'x' is not a number"),
        ("", "no sequences"),
    ],
)
def test_bad_ts(tmp_path, body, words):
    with pytest.raises(UserError, match=words) as error:
        read_labelled(ts(tmp_path / "x.ts", body))
    assert line(error)


def test_ts_without_its_parts(tmp_path):
    path = ts(tmp_path / "x.ts", "1:2:a")
    whole = path.read_text()
    path.write_text(whole.replace("@data", ""))
    with pytest.raises(UserError, match="no line @data"):
        read_labelled(path)
    path.write_text(whole.replace("@timeStamps false", "@timeStamps true"))
    with pytest.raises(UserError, match="time stamps"):
        read_labelled(path)
    path.write_text(whole.replace("@classLabel true", "@classLabel false"))
    with pytest.raises(UserError, match="no labels"):
        read_labelled(path)


def test_npz(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 8, 2)), np.array(["up", "down"] * 15)
    lengths = rng.integers(1, 9, size=30)
    np.savez(tmp_path / "x.npz", x=x, y=y, lengths=lengths)
    found, _, _ = read_labelled(tmp_path / "x.npz")
    assert found.classes == ("down", "up") and found.labels[:2].tolist() == [1, 0]
    for given_, rows_, n in zip(found.inputs, x, lengths, strict=True):
        np.testing.assert_array_equal(given_, rows_[:n].astype(np.float32))
    np.savez(tmp_path / "x.npz", x=x[:, :, 0], y=np.arange(30) / 2, x_test=x[:5, :, 1],
             y_test=np.ones(5))  # fmt: skip
    found, _, _ = read_labelled(tmp_path / "x.npz", kind="regress")
    assert np.bincount(found.part).tolist() == [24, 6, 5] and found.inputs[0].shape == (8, 1)
    assert found.labels[:3].tolist() == [0, 0.5, 1] and found.labels[-1] == 1


def test_an_npz_may_tell_the_lengths_of_each_part(tmp_path):
    x, y = np.arange(80.0).reshape(20, 4), np.arange(20) % 2
    np.savez(tmp_path / "x.npz", x=x, y=y, lengths=np.full(20, 3), x_test=x[:2, :3],
             y_test=y[:2], lengths_test=[1, 2])  # fmt: skip
    found, _, _ = read_labelled(tmp_path / "x.npz")
    assert {len(x) for x, p in zip(found.inputs, found.part, strict=True) if p < 2} == {3}
    assert [len(x) for x in found.inputs[-2:]] == [1, 2]


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_objects_in_an_npz_are_not_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", x=np.array([Bomb()] * 4, object), y=np.arange(4))
    with pytest.raises(UserError, match="could run code") as error:
        read_labelled("x.npz")
    assert line(error) and not (tmp_path / "exploded").exists()


def test_bad_npz(tmp_path):
    path = tmp_path / "x.npz"
    for arrays, words in (
        ({"x": np.ones((4, 3))}, "no array 'y'; known: x"),
        ({"x": np.ones(4), "y": np.ones(4)}, r"expected numbers \(N, T, F\)"),
        ({"x": np.ones((4, 3)), "y": np.ones(3)}, "one for each x"),
        ({"x": np.ones((4, 3)), "y": np.ones(4), "lengths": np.full(4, 4)}, "ints of 0 to 3"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(UserError, match=words) as error:
            read_labelled(path)
        assert line(error)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="not a whole"):
        read_labelled(path)


def test_long_tables(tmp_path):
    frame = table()
    mixed = frame.sample(frac=1, random_state=0)
    found, notes, _ = read_labelled(write(tmp_path, mixed), target="y", group="id", time="t")
    assert found.columns == ("x", "z") and found.classes == ("a", "b") and len(found.ids) == 20
    assert any("sorted" in text for text in notes)
    for name, x, label in zip(found.ids, found.inputs, found.labels, strict=True):
        own = frame[frame.id == name]
        np.testing.assert_allclose(x, own[["x", "z"]], rtol=1e-6)
        assert found.classes[label] == own.y.iloc[0]
    frame.to_parquet(tmp_path / "t.parquet")
    other, _, _ = read_labelled(
        tmp_path / "t.parquet", target="y", group="id", covariates=["z"], time="t"
    )
    assert other.columns == ("z",) and other.ids == tuple(f"s{i}" for i in range(20))
    test = write(tmp_path, frame[:60], "test.csv")
    found, _, warnings = read_labelled(write(tmp_path, frame), target="y", group="id", test=test)
    assert (found.part == 2).sum() == 10 and found.columns == ("t", "x", "z")
    assert [text for text in warnings if "of the test part are also in the training" in text]


def test_targets_of_steps(tmp_path):
    frame = table(target=lambda i, t: i + t / 10)
    found, _, _ = read_labelled(write(tmp_path, frame), target="y", group="id", kind="regress")
    np.testing.assert_allclose(found.steps[3], 3 + np.arange(6) / 10)
    np.testing.assert_allclose(found.labels, np.arange(20) + 0.5)
    # Out of order, and without one sequence, each keeps its own targets.
    frame = table(target=lambda i, t: i + t / 10).assign(x=lambda f: f.y)
    frame.loc[frame.id == "s3", ["x", "z"]] = np.nan
    mixed = write(tmp_path, frame.sample(frac=1, random_state=0))
    found, _, _ = read_labelled(mixed, target="y", group="id", time="t", kind="regress")
    assert len(found.ids) == 19 and "s3" not in found.ids
    for name, steps, x in zip(found.ids, found.steps, found.inputs, strict=True):
        assert name == f"s{int(steps[0])}"
        np.testing.assert_allclose(steps, x[:, 0], rtol=1e-6)
    frame = table(target=lambda i, t: i / 2)
    found, _, _ = read_labelled(write(tmp_path, frame), target="y", group="id", kind="regress")
    assert found.steps is None and found.labels[3] == 1.5


# ----------------------------------------------------------------------------------------- parts


@given(st.lists(st.integers(0, 4), min_size=3, max_size=60), st.booleans(), st.integers(0, 5))
def test_parts_hold_a_share_of_each_class(labels, given_test, seed):
    labels = np.array(labels)
    part = np.zeros(len(labels), np.int8)
    if given_test:
        part[::3] = 2
    found = part_classes(labels, part, 0.2, 0.2, np.random.default_rng(seed))
    if given_test:
        np.testing.assert_array_equal(found == 2, part == 2)
    for label in np.unique(labels):
        mine = found[(labels == label) & ((part != 2) | (not given_test))]
        n = len(mine)
        if not n:
            continue
        counts = np.bincount(mine, minlength=3)
        assert counts[0] >= 1
        if given_test:
            assert counts[1] >= (n >= 2) and abs(counts[1] - 0.2 * n) <= 1
        else:
            assert counts[2] >= (n >= 3) and counts[1] >= (n >= 3)
            assert abs(counts[2] - 0.2 * n) <= 1 and abs(counts[1] - 0.16 * n) <= 1.2


def test_a_part_never_takes_all_of_a_class():
    part = part_classes(np.zeros(2, int), np.zeros(2, np.int8), 0.9, 0.9, np.random.default_rng(0))
    assert sorted(part) == [0, 2]


def test_parts_are_drawn_by_the_seed(tmp_path):
    path = tsv(tmp_path / "x.tsv", rows(100))
    first, again, other = (read_labelled(path, seed=s)[0].part for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and np.bincount(first).tolist() == [64, 16, 20]


@pytest.mark.parametrize(
    "data, words",
    [
        (rows(classes="a"), "one class only, 'a'"),
        ([("a", [1, "x"])] * 9, "row 1: 'x' is not a number"),
        ([(str(i), [1.0, i]) for i in range(50)], "say --task=regress"),
        ([("a", []), *rows()], "row 1 has one value"),
        ([("", [1.0]), *rows()], "the label of sequence"),
    ],
)
def test_refused_rows(tmp_path, data, words):
    with pytest.raises(UserError, match=words) as error:
        read_labelled(tsv(tmp_path / "x.tsv", data))
    assert line(error)


def test_a_class_that_only_the_test_part_has(tmp_path):
    tsv(tmp_path / "x_TEST.tsv", rows(9, classes="abc"))
    with pytest.raises(UserError, match="class 'c', which the training part lacks; known: a, b"):
        read_labelled(tsv(tmp_path / "x_TRAIN.tsv", rows()))


def test_warnings(tmp_path):
    data = [*rows(), ("rare", [1.0] * 12)]
    data += [("two", [float(i)] * 12) for i in range(3)]  # one of them is for validation
    tsv(tmp_path / "x_TEST.tsv", [data[0], data[3], *rows(9, seed=1)])
    _, _, warnings = read_labelled(tsv(tmp_path / "x_TRAIN.tsv", data))
    assert any("1 of 4 classes have fewer than 2" in text and "rare" in text for text in warnings)
    copies = [text for text in warnings if "sequences of the test part" in text]
    assert len(copies) == 1 and copies[0][0] in "12"


@pytest.mark.parametrize(
    "options, words",
    [
        ({"group": "id"}, "--target"),
        ({"target": "y"}, "--group"),
        ({"target": "y", "group": "idd"}, "no column 'idd'; did you mean id"),
        ({"target": "q", "group": "id"}, "no column 'q'"),
        ({"target": "t", "group": "id"}, "'t' changes within sequence 's0'"),
        ({"target": "y", "group": "id", "kind": "regress"}, "'y' is not numeric"),
        ({"target": "y", "group": "id", "covariates": ["y"]}, "named twice"),
        ({"target": "y", "group": "x"}, "every row has another id"),
        ({"target": "y", "group": "id", "kind": "sort"}, "none of classify, regress"),
        ({"target": "y", "group": "id", "valid": 1}, "between 0 and 1"),
    ],
)
def test_refused_tables(tmp_path, options, words):
    with pytest.raises(UserError, match=words) as error:
        read_labelled(write(tmp_path, table()), **options)
    assert line(error)


def test_gaps_of_a_target_and_of_an_id_are_told(tmp_path):
    frame = table(target=lambda i, t: i + t)
    frame.loc[8, "y"] = np.nan
    with pytest.raises(UserError, match="target 'y' is missing in sequence 's1'"):
        read_labelled(write(tmp_path, frame), target="y", group="id", kind="regress")
    frame = table()
    frame.loc[8, "id"] = ""
    with pytest.raises(UserError, match="--group=id is empty in row 9"):
        read_labelled(write(tmp_path, frame), target="y", group="id")


def test_a_target_that_is_always_the_same_is_refused(tmp_path):
    path = write(tmp_path, table(target=lambda i, t: 3))
    with pytest.raises(UserError, match="the target is always 3: there is nothing to learn"):
        read_labelled(path, target="y", group="id", kind="regress")


@pytest.mark.parametrize(
    "header, told",
    [
        ("@dimensions two", "@dimensions 'two' is not a number"),
        ("@dimensions", "@dimensions '' is not a number"),
        ("@classLabel", "neither @classLabel nor @targetLabel"),
    ],
)
def test_headers_without_their_value_are_told(tmp_path, header, told):
    path = ts(tmp_path / "x.ts", "1,2:3,4:a")
    name = header.split()[0]
    text = [header if row.startswith(name) else row for row in path.read_text().split("\n")]
    path.write_text("\n".join(text))
    with pytest.raises(UserError, match=told):
        read_labelled(path)


def test_no_column_of_numbers(tmp_path):
    path = write(tmp_path, table()[["id", "y"]].assign(w="text"))
    with pytest.raises(UserError, match="no column of numbers"):
        read_labelled(path, target="y", group="id")
