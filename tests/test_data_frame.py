"""CSV and Parquet files in all the ways that people write them."""

import numpy as np
import pandas as pd
import pytest
from data_files import daily, hours, line, said, write
from hypothesis import given
from hypothesis import strategies as st

from rnnx.data.frame import read_frame, sniff
from rnnx.data.table import read_series
from rnnx.errors import UserError


@pytest.mark.parametrize(
    "text, form",
    [
        ("a,b\n1,2\n", (",", ".", True)),
        ("a;b\n1,5;2\n", (";", ",", True)),
        ("a;b\n1,234;2.5\n", (";", ".", True)),  # of thousands: refused where it is read
        ("1,5;2,5\n2,5;2,5\n", (";", ",", False)),
        ("a\tb\n1.5\t2\n", ("\t", ".", True)),
        ("a\n1,5\n2,5\n", (";", ",", True)),
        ("1,2\n3,4\n", (",", ".", False)),
        ("2020-01-01,4\n2020-01-02,5\n", (",", ".", False)),
        ('"a, b",c\n1,2\n', (",", ".", True)),
        ("id,1,2,3\nx,4,5,6\n", (",", ".", True)),
        ("x,1,2\ny,4,5\n", (",", ".", True)),  # as a header: its numbers count
        ("x,7,2\ny,4,5\n", (",", ".", False)),
        ("\n,v\n0,1\n", (",", ".", True)),
    ],
)
def test_the_form_of_a_file(text, form):
    found = sniff("t.csv", text.lstrip("\n"))
    assert (found.separator, found.decimal, found.header) == form


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_marks_quotes_and_blank_lines(tmp_path, end, mark):
    rows = [f'"{t}","{i % 7}"' for i, t in enumerate(hours(60))]
    path = tmp_path / "t.csv"
    path.write_bytes((mark + end.join(['"when","v"', *rows, "", "", ","]) + end).encode())
    series, notes, _ = read_series(path)
    assert series.targets == ("v",) and said(notes, "time is 'when'")
    assert series.values[0][:, 0].tolist() == [i % 7 for i in range(60)]


@given(
    st.lists(
        st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: round(x, 6)), min_size=30, max_size=60
    ),
    st.sampled_from([(",", "."), (";", ","), ("\t", ","), (";", ".")]),
)
def test_numbers_come_back_however_they_are_written(tmp_path_factory, values, form):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    frame = pd.DataFrame({"t": hours(len(values)), "v": values, "w": daily(len(values))})
    frame.to_csv(path, sep=form[0], decimal=form[1], index=False)
    read = read_frame(path)
    np.testing.assert_allclose(read["v"], values, rtol=1e-14)


def test_parquet_is_read_as_csv_is(tmp_path):
    frame = pd.DataFrame({"t": hours(100), "v": daily(100), "n": np.arange(100) % 3})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.set_index("t").to_parquet(tmp_path / "i.parquet")
    write(tmp_path, frame)
    found = [read_series(tmp_path / n)[0] for n in ("t.csv", "t.parquet", "i.parquet")]
    for other in found[1:]:
        assert other.targets == ("v", "n")
        np.testing.assert_allclose(other.values[0], found[0].values[0], rtol=1e-14)
        np.testing.assert_array_equal(other.times[0], found[0].times[0])


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\n\n", "is empty"),
        (b"a,b\n", "no rows"),
        (b"a\0b,\n1,2\n", "binary"),
        (b"\xff\xfea\0", "UTF-16"),
        (b"a,b\n1,2\n3,4,5\n", "line 3 has 3 values"),
        (b"a,a\n1,2\n", "two columns named 'a'"),
        (b"PAR1garbage", "not a whole Parquet file"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, words):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        read_series(path)
    assert str(path) in line(error)


def test_a_parquet_file_cut_short(tmp_path):
    pd.DataFrame({"t": hours(100), "v": daily(100)}).to_parquet(tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    for size in (len(whole) // 2, len(whole) - 1):
        (tmp_path / "t.parquet").write_bytes(whole[:size])
        with pytest.raises(UserError, match="cut short") as error:
            read_series(tmp_path / "t.parquet")
        assert line(error)


def test_latin_1(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("Temp\xe9rature\n".encode("latin-1") + b"1\n2\n3\n4\n5\n" * 8)
    assert read_series(path)[0].targets == ("Temp\xe9rature",)


def test_an_empty_line_of_a_single_column_is_a_missing_value(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\nv\n" + "1\n2\n\n5\n" * 10 + "\n")
    values = read_series(path)[0].values[0][:, 0]
    assert len(values) == 40 and np.flatnonzero(np.isnan(values)).tolist() == list(range(2, 40, 4))


def test_spaces_before_quotes_are_none_of_the_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a, b\n1, "x, y"\n2, "z"\n')
    assert read_frame(path)["b"].tolist() == ["x, y", "z"]


def test_without_a_header_the_first_row_counts(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("1;2,5\n3;4,5\n")
    frame = read_frame(path)
    assert frame.to_numpy().tolist() == [[1, 2.5], [3, 4.5]] and list(frame) == ["1", "2"]
