"""New sequences without labels: their names, the order of their steps, and what fills gaps."""

import numpy as np
import pandas as pd
import pytest
from data_files import line, write

from rnnx.data.unlabelled import read_unlabelled
from rnnx.errors import UserError

ZERO = np.zeros(1)


def test_steps_of_a_table_are_in_order_of_their_times(tmp_path):
    frame = pd.DataFrame({"id": list("baba"), "t": [2, 1, 1, 0], "x": [4.0, 3.0, 2.0, 1.0]})
    dated = frame.assign(t=pd.to_datetime(frame.t, unit="D").dt.strftime("%Y-%m-%d"))
    for table in (frame, dated):
        path = write(tmp_path, table)
        names, inputs = read_unlabelled(path, columns=["x"], mean=ZERO, group="id", time="t")
        assert names == ["b", "a"] and [x[:, 0].tolist() for x in inputs] == [[2, 4], [1, 3]]
    names, inputs = read_unlabelled(path, columns=["x"], mean=ZERO, group="id")
    assert [x[:, 0].tolist() for x in inputs] == [[4, 2], [3, 1]]  # as they come


def test_names_stay_with_their_sequences_where_one_is_left_out(tmp_path):
    x = np.arange(9.0).reshape(3, 3)
    np.savez(tmp_path / "x.npz", x=x, lengths=[2, 0, 3])
    names, inputs = read_unlabelled(tmp_path / "x.npz", columns=["1"], mean=ZERO)
    assert names == ["1", "3"] and [x[:, 0].tolist() for x in inputs] == [[0, 1], [6, 7, 8]]
    assert {x.dtype for x in inputs} == {np.dtype(np.float32)}


def test_gaps_are_filled_from_the_past_and_by_the_mean_before_it(tmp_path):
    x = np.array([[[np.nan, 1], [np.inf, 2], [5, np.nan], [-np.inf, 4]]])
    np.savez(tmp_path / "x.npz", x=x, lengths=[4])
    _, (found,) = read_unlabelled(tmp_path / "x.npz", columns=["1", "2"], mean=np.array([7, 8]))
    assert found.tolist() == [[7, 1], [7, 2], [5, 2], [5, 4]]


def test_engines_have_the_columns_that_the_network_reads(tmp_path):
    rows = np.array([[2, 2], [1, 2], [2, 1], [1, 1]])  # engine and cycle, out of order
    table = np.column_stack([rows, 100 * rows[:, :1] + 10 * rows[:, 1:] + np.arange(24)])
    np.savetxt(tmp_path / "test_FD001.txt", table)
    columns = ["sensor 2", "setting 1"]
    names, inputs = read_unlabelled(tmp_path / "test_FD001.txt", columns=columns, mean=ZERO)
    assert names == ["1", "2"]
    assert [x.tolist() for x in inputs] == [[[114, 110], [124, 120]], [[214, 210], [224, 220]]]


@pytest.mark.parametrize(
    "options, told",
    [
        ({"columns": ["x"]}, "is a table, but the network was not trained on one"),
        ({"columns": ["y"], "group": "id"}, "no column 'y'"),
        ({"columns": ["x"], "group": "id", "time": "tt"}, "no column 'tt'"),
        ({"columns": ["x"], "group": "none"}, "--group=none is empty in row 2"),
        ({"columns": ["x"], "group": "id", "time": "gap"}, "--time=gap is empty in row 1"),
    ],
)
def test_tables_of_another_form_are_told(tmp_path, options, told):
    frame = pd.DataFrame({"id": list("ab"), "t": [0, 1], "x": [1.0, 2.0], "none": ["a", ""]})
    frame["gap"] = [np.nan, 1]
    with pytest.raises(UserError, match=told) as error:
        read_unlabelled(write(tmp_path, frame), mean=ZERO, **options)
    assert line(error)


def test_other_numbers_of_values_are_told(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones((2, 3, 4)))
    with pytest.raises(UserError, match="has 4 values a step; the network reads 1"):
        read_unlabelled(tmp_path / "x.npz", columns=["1"], mean=ZERO)
