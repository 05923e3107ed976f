"""The task that a file asks for; doubt is refused with what to say."""

import numpy as np
import pandas as pd
import pytest
from data_files import line, real, write

from rnnx.data.detect import detect
from rnnx.errors import UserError


def sequences(labels, steps=5):
    return pd.DataFrame(
        [
            {"id": i, "x": i * 0.5 + t, "y": label}
            for i, label in enumerate(labels)
            for t in range(steps)
        ]
    )


@pytest.mark.parametrize(
    "name, task",
    [
        ("series/ETTh1.csv", "forecast"),
        ("series/AEP_hourly.csv", "forecast"),
        ("series/bike_hour.csv", "forecast"),
        ("series/exchange_rate.csv", "forecast"),
        ("ucr/ECG200/ECG200_TRAIN.tsv", "classify"),
        ("ucr/MelbournePedestrian/MelbournePedestrian_TRAIN.tsv", "classify"),
        ("ucr/JapaneseVowels/JapaneseVowels_TRAIN.ts", "classify"),
        ("cmapss", "regress"),
        ("cmapss/train_FD001.txt", "regress"),
        ("ptb/ptb.train.txt", "text"),
        ("tinyshakespeare.txt", "text"),
        ("text8.prefix", "text"),
        ("enwik8.prefix", "text"),
        ("README.md", "text"),
    ],
)
def test_real_files(name, task):
    found, why = detect(real(name))
    assert found == task and why and "\n" not in why


def test_m4_needs_its_layout():
    with pytest.raises(UserError, match="--layout=wide") as error:
        detect(real("m4/Hourly-train.csv"))
    assert line(error)
    assert detect(real("m4/Hourly-train.csv"), layout="wide")[0] == "forecast"


@pytest.mark.parametrize(
    "labels, task",
    [
        (["a", "b"] * 5, "classify"),
        ([0, 1] * 5, "classify"),
        ([0.5, 1.5, 2.25] * 5, "regress"),
    ],
)
def test_labels_of_sequences(tmp_path, labels, task):
    frame = sequences(labels)
    found, why = detect(write(tmp_path, frame), target=["y"], group="id")
    assert found == task and "'y'" in why
    frame.to_parquet(tmp_path / "t.parquet")
    assert detect(tmp_path / "t.parquet", target=["y"], group="id")[0] == task
    with pytest.raises(UserError, match="name --group=id and --target=y"):
        detect(write(tmp_path, frame))
    np.savez(tmp_path / "x.npz", x=np.ones((len(labels), 3)), y=np.array(labels))
    assert detect(tmp_path / "x.npz")[0] == task


@pytest.mark.parametrize("kind, task", [("classLabel", "classify"), ("targetLabel", "regress")])
def test_a_ts_file_says_itself_what_its_labels_are(tmp_path, kind, task):
    (tmp_path / "a.ts").write_text(f"@problemName a\n@{kind} true\n@data\n1,2:3\n2,3:4\n")
    assert detect(tmp_path / "a.ts")[0] == task


def test_text_that_changes_within_a_sequence_is_no_series(tmp_path):
    frame = sequences(["a", "b"] * 5).assign(y=list("ab") * 25)
    frame["t"] = list(pd.date_range("2020-01-01", periods=5)) * 10
    for path in (write(tmp_path, frame), write(tmp_path, frame.drop(columns="t"), "u.csv")):
        assert detect(path, target=["y"], group="id") == ("classify", "'y' is not numeric")


def test_ids_of_one_row_each_are_no_sequences(tmp_path):
    frame = sequences(range(10), steps=1)
    frame["t"] = pd.date_range("2020-01-01", periods=10)
    assert detect(write(tmp_path, frame), target=["y"], group="id")[0] == "forecast"


@pytest.mark.parametrize("copies", [1, 2])
def test_many_whole_numbers_are_in_doubt(tmp_path, copies):
    path = write(tmp_path, sequences(list(range(30)) * copies))
    with pytest.raises(UserError, match="30 different whole numbers: say --task=classify") as error:
        detect(path, target=["y"], group="id")
    assert line(error)


def test_groups_with_times_are_series(tmp_path):
    frame = sequences([1.0] * 4, steps=30)
    frame["t"] = list(pd.date_range("2020-01-01", periods=30)) * 4
    frame["y"] = np.arange(120.0)
    path = write(tmp_path, frame)
    assert detect(path, target=["y"], group="id")[0] == "forecast"
    assert detect(path)[0] == "forecast"
    assert detect(path, horizon=3) == ("forecast", "--horizon is given")
    path = write(tmp_path, frame.drop(columns="t"))
    with pytest.raises(UserError, match="no column of times: say --task=forecast, or"):
        detect(path, target=["y"], group="id")


@pytest.mark.parametrize(
    "name, content, task",
    [
        ("a.txt", "Yes, it was.\nNo, it was not, she said, and left.\nThe end\n", "text"),
        ("a.txt", "one line without an end", "text"),
        ("a.txt", "1 apple, 2 pears, 3 figs\n4 figs, 5 pears\n6 figs\n7 figs, 8\n", "text"),
        ("a.tsv", "t\tv\n2020-01-01\t3\n2020-01-02\t4\n2020-01-03\t5\n", "forecast"),
        ("a.txt", "t;v\n2020-01-01;3,5\n2020-01-02;4,5\n2020-01-03;5,5\n", "forecast"),
        ("a.py", "a = 1, 2\nb = 2, 3\nc = 4, 5\n", "text"),
    ],
)
def test_text_and_tables(tmp_path, name, content, task):
    (tmp_path / name).write_text(content)
    assert detect(tmp_path / name)[0] == task


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.csv", b"w,s\nyes,good\nno,bad\n", "without a column of numbers: say --task"),
        ("a.csv", b"w,v\nyes,1\nno,2\nno,3\n", "'w' is not numeric: say --task"),
        ("a.bin", bytes(range(256)), "neither a table nor UTF-8"),
        ("a.txt", b"caf\xe9 au lait", "neither a table nor UTF-8"),
        ("a.txt", b"", "is empty"),
    ],
)
def test_doubt_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        detect(tmp_path / name)
    assert line(error)


def test_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        detect(tmp_path)
    with pytest.raises(UserError, match="is not there"):
        detect(tmp_path / "none.csv")
    path = write(tmp_path, sequences([0, 1]))
    with pytest.raises(UserError, match="no column 'yy'; did you mean y"):
        detect(path, target=["yy"], group="id")
