"""Published sets by name: found in their folders, checked, downloaded, or named with a place."""

import pytest
from data_files import NOWHERE, line, own_cache, put, raw, real

from rnnx.data import catalogue, sets
from rnnx.errors import Outage, UserError


@pytest.fixture
def clean(monkeypatch, tmp_path):
    own_cache(monkeypatch, tmp_path)


@pytest.fixture
def small(monkeypatch, clean):
    """M4 of two small files."""
    files = {"train": raw("Hourly-train.csv", b"a,1\n"), "test": raw("Hourly-test.csv", b"a,2\n")}
    monkeypatch.setitem(catalogue.NUMBERS, "m4_hourly", ("m4", files))
    return {"Hourly-train.csv": b"a,1\n", "Hourly-test.csv": b"a,2\n"}


@pytest.mark.parametrize("name", ["etth1", "m4_hourly", "cmapss", "ucr/ECG200",
                                  "ucr/JapaneseVowels"])  # fmt: skip
def test_the_real_sets_are_found(name):
    place = real("series").parent
    found = sets.find(name, str(place))
    assert found["train"].is_file() and place in found["train"].parents
    assert ("test" in found) == (name != "etth1") and ("rul" in found) == (name == "cmapss")


@pytest.mark.parametrize("folder", ["", "m4"])
def test_files_lie_in_their_folder_or_beside_the_others(tmp_path, small, folder):
    home = put(tmp_path / "data" / folder, small)
    found = sets.find("m4_hourly", str(tmp_path / "data"))
    assert found == {"train": home / "Hourly-train.csv", "test": home / "Hourly-test.csv"}


def test_the_data_folder_may_come_from_the_environment(tmp_path, small, monkeypatch):
    monkeypatch.setenv("RNNX_DATA", str(tmp_path / "data"))
    put(tmp_path / "data" / "m4", small)
    put(tmp_path / "data" / "ucr" / "A", {"A_TRAIN.ts": b"", "A_TEST.ts": b""})
    assert sets.find("m4_hourly")["test"].read_bytes() == b"a,2\n"
    assert sets.find("ucr/A")["train"].name == "A_TRAIN.ts"


def test_a_damaged_file_is_refused(tmp_path, small):
    put(tmp_path / "m4", small | {"Hourly-test.csv": b"a,3\n"})
    with pytest.raises(UserError, match=r"Hourly-test\.csv is damaged") as error:
        sets.find("m4_hourly", str(tmp_path))
    assert line(error)


def test_missing_files_are_downloaded(tmp_path, small):
    with pytest.raises(Outage, match="cannot download") as error:
        sets.find("m4_hourly", str(tmp_path))
    assert f"{NOWHERE}Hourly-train.csv" in line(error)


@pytest.mark.parametrize(
    "name, words",
    [
        ("cmapss", r"put train_FD001\.txt, .* from https://www\.nasa\.gov/.* into .*cmapss"),
        ("ucr/ECG200", r"put ECG200_TRAIN\.tsv, .* from https://www\.time.* into .*ucr/ECG200"),
        ("eth1", "unknown set 'eth1'; did you mean etth1"),
        ("ucr/../../etc", "unknown set"),
        ("ucr/", "unknown set"),
    ],
)
def test_sets_that_are_not_there(tmp_path, clean, name, words):
    with pytest.raises(UserError, match=words) as error:
        sets.find(name, str(tmp_path))
    assert line(error)


def test_a_set_needs_all_of_its_files(tmp_path, clean):
    put(tmp_path / "ucr" / "A", {"A_TRAIN.tsv": b"", "A_TEST.ts": b""})
    with pytest.raises(UserError, match="is not there"):
        sets.find("ucr/A", str(tmp_path))
