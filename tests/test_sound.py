"""Sound files, features, digits and own recordings; what is damaged is told in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import QUIET

from rnnx import config as configs
from rnnx.data import digits, features, recordings, sound, speech
from rnnx.errors import UserError

TONE = (0.5 * np.sin(np.arange(4000) / 5)).astype(np.float32)


def write(path: Path, samples: np.ndarray = TONE, rate: int = 8000, **form) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **form)
    return path


@pytest.mark.parametrize(
    "name, form", [("a.wav", {}), ("a.flac", {}), ("a.wav", {"subtype": "FLOAT"})]
)
def test_sound_is_read_as_it_was_written(name: str, form: dict, tmp_path: Path) -> None:
    samples, rate = sound.read_sound(write(tmp_path / name, **form))
    np.testing.assert_allclose(samples, TONE, atol=1e-4)
    assert rate == 8000 and samples.dtype == np.float32


def test_eight_bits_and_two_channels_will_do(tmp_path: Path) -> None:
    coarse, _ = sound.read_sound(write(tmp_path / "a.wav", subtype="PCM_U8"))
    np.testing.assert_allclose(coarse, TONE, atol=1e-2)
    both, _ = sound.read_sound(write(tmp_path / "b.wav", np.stack([TONE, 0 * TONE], axis=1)))
    np.testing.assert_allclose(both, TONE / 2, atol=1e-4)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


@pytest.mark.parametrize(
    "harm, told",
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b""), "no sound file that can be read"),
        (lambda path: path.write_text("hello"), "no sound file that can be read"),
        (_cut, "is cut off"),
        (lambda path: write(path, TONE[:0]), "holds no samples"),
        (lambda path: write(path, TONE * np.nan, subtype="FLOAT"), "not finite"),
    ],
)
def test_what_cannot_be_read_is_told(harm: Callable, told: str, tmp_path: Path) -> None:
    harm(path := write(tmp_path / "a.wav"))
    with pytest.raises(UserError, match=told) as error:
        sound.read_sound(path)
    assert "\n" not in str(error.value)


def test_bands_follow_the_tone_and_the_rate_does_not_matter() -> None:
    """A tone's band holds the most energy; at twice the rate it is the same band."""
    time = np.arange(8000) / 8000
    low, high = (np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (300, 2500))
    found = [sound.log_mel(x, 8000).mean(axis=0).argmax() for x in (low, high)]
    assert found[0] < 10 < 25 < found[1]
    assert sound.log_mel(low, 8000).shape == (98, sound.BANDS)
    twice = sound.resampled(low, 8000, 16_000)
    assert len(twice) == 16_000
    np.testing.assert_allclose(
        sound.features(twice, 16_000, 8000)[5:-5], sound.log_mel(low, 8000)[5:-5], atol=0.3
    )
    with pytest.raises(UserError, match="12 ms of sound"):
        sound.log_mel(low[:100], 8000)


def test_features_are_computed_once_and_a_damaged_cache_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "cache"))
    said: list[str] = []

    def of(*lengths: int) -> list[np.ndarray]:
        return features.of(lambda i: (TONE[: lengths[i]], 8000), 2, 8000, said.append)[0]

    first, again = of(4000, 1000), of(4000, 1000)
    assert said == ["computing features"]
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)
    (kept,) = (tmp_path / "cache" / "speech").iterdir()
    kept.write_bytes(kept.read_bytes()[:500])
    of(4000, 1000)
    of(4000, 1001)
    of(3999, 1001)
    assert len(said) == 4
    monkeypatch.setattr(features, "_EVERY", 0.0)
    of(3000, 1001)
    assert said[-1] == "computing features: 2 of 2 recordings"


def test_features_of_another_rate_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same samples, whether it is that of the file or the one wanted."""
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "cache"))
    for rate, wanted in ((8000, 8000), (16_000, 8000), (8000, 16_000)):
        (found,), _ = features.of(lambda i, rate=rate: (TONE, rate), 1, wanted, QUIET.print)
        np.testing.assert_array_equal(found, sound.features(TONE, rate, wanted))


# ---------------------------------------------------------------------------- digits


@pytest.fixture
def takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two speakers of that set; the value of every sample says which recording it is."""
    monkeypatch.setattr(digits, "SPEAKERS", ("ann", "bob"))
    for i, speaker in enumerate(("ann", "bob")):
        for digit in range(10):
            for take in range(50):
                value = np.float32((1 + i * 500 + digit * 50 + take) / 2000)
                write(tmp_path / "fsdd" / "recordings" / f"{digit}_{speaker}_{take}.wav",
                      np.full(800, value), subtype="FLOAT")  # fmt: skip
    return tmp_path


def test_no_recording_is_in_two_parts_and_texts_are_what_is_heard(takes: Path) -> None:
    found = speech.Recordings(*digits.read("digits", str(takes)))
    used: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    for i, (text, speaker, part) in enumerate(
        zip(found.texts, found.speakers, found.part, strict=True)
    ):
        samples, _ = found.load(i)
        numbers = np.round(samples * 2000).astype(int) - 1
        heard = [n for i, n in enumerate(numbers) if n >= 0 and (not i or numbers[i - 1] != n)]
        heard = [n for n in heard if (numbers == n).sum() >= 800]
        assert {n // 500 for n in heard} == {("ann", "bob").index(speaker)}
        spoken = [n % 500 // 50 for n in heard]
        # The same recording twice in a row, without a pause, is heard once.
        assert set(map(int, text)) == set(spoken) and 3 <= len(text) <= 7
        used[int(part)] |= {n % 50 for n in heard}
    assert used[2] <= set(range(5)) and used[1] <= set(range(5, 10))
    assert used[0] == set(range(10, 50))
    assert [(found.part == p).sum() for p in range(3)] == [600, 60, 100]
    again = speech.Recordings(*digits.read("digits", str(takes)))
    assert again.texts == found.texts and again.sums == found.sums


def test_a_speaker_is_held_out(takes: Path) -> None:
    found = speech.Recordings(*digits.read("digits/bob", str(takes)))
    by = {part: {s for s, p in zip(found.speakers, found.part, strict=True) if p == part}
          for part in range(3)}  # fmt: skip
    assert by == {0: {"ann"}, 1: {"ann"}, 2: {"bob"}}
    with pytest.raises(UserError, match="did you mean bob"):
        digits.read("digits/rob", str(takes))
    (takes / "fsdd" / "recordings" / "3_ann_7.wav").unlink()
    with pytest.raises(UserError, match="3_ann_7"):
        digits.read("digits", str(takes))


# ---------------------------------------------------------------------------- own recordings


def manifest(folder: Path, lines: list[str], count: int = 12) -> Path:
    for i in range(count):
        write(folder / f"{i}.wav", TONE[: 1000 + i])
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_folder_of_recordings_is_divided(tmp_path: Path) -> None:
    lines = ["path\ttext", *(f"{i}.wav\tword  {i}" for i in range(12))]
    found = speech.Recordings(*recordings.read(manifest(tmp_path, lines)))
    assert found.texts[3] == "word 3" and found.wanted == 16_000
    assert np.flatnonzero(found.part == 1).tolist() == [8]
    assert np.flatnonzero(found.part == 2).tolist() == [9]
    named = [f"{i}.wav\ta\ts{i}\t{('train', 'dev', 'test')[i % 3]}" for i in range(12)]
    found = speech.Recordings(*recordings.read(manifest(tmp_path, named)))
    assert found.part.tolist() == [0, 1, 2] * 4
    by_speaker = [f"{i % 12}.wav\ta\tspeaker {i % 12:02d}" for i in range(24)]
    found = speech.Recordings(*recordings.read(manifest(tmp_path, by_speaker)))
    parts = {s: p for s, p in zip(found.speakers, found.part, strict=True)}
    assert parts["speaker 08"] == 1 and parts["speaker 09"] == 2 and parts["speaker 00"] == 0
    assert all(parts[s] == p for s, p in zip(found.speakers, found.part, strict=True))


def test_parts_of_some_recordings_only_are_refused(tmp_path: Path) -> None:
    """Not divided anew: what was named for the test would be learned from."""
    lines = [f"{i}.wav\ta\tann" + ("\ttest" if i > 8 else "") for i in range(12)]
    with pytest.raises(UserError, match="names no part for 9 of 12 recordings"):
        recordings.read(manifest(tmp_path, lines))


def test_a_folder_of_kaldi(tmp_path: Path) -> None:
    manifest(tmp_path, [])
    (tmp_path / "manifest.tsv").unlink()
    (tmp_path / "wav.scp").write_text("".join(f"u{i} {i}.wav\n" for i in range(12)))
    (tmp_path / "text").write_text("".join(f"u{i} A  B\n" for i in range(12)))
    (tmp_path / "utt2spk").write_text("".join(f"u{i} s{i}\n" for i in range(12)))
    found = speech.Recordings(*recordings.read(tmp_path))
    assert found.ids[1] == "u1" and found.texts[1] == "A B" and found.speakers[1] == "s1"
    for name in ("train", "dev", "test"):
        home = tmp_path / "parts" / name
        manifest(home, [], count=2)
        (home / "wav.scp").write_text("".join(f"{name}{i} {i}.wav\n" for i in range(2)))
        (home / "text").write_text(f"{name}0 A <NOISE> B\n{name}1 <SPOKEN_NOISE> A\n")
        (home / "manifest.tsv").unlink()
    found = speech.Recordings(*recordings.read(tmp_path / "parts"))
    assert found.texts == ["A B", "A"] * 3 and found.ids[2:4] == ["dev0", "dev1"]
    assert found.part.tolist() == [0, 0, 1, 1, 2, 2] and len(found.load(5)[0]) == 1001
    (tmp_path / "wav.scp").write_text("u0 sph2pipe x |\n")
    with pytest.raises(UserError, match="line 1 is a command"):
        recordings.read(tmp_path)


def test_kaldi_s_files_may_have_tabs(tmp_path: Path) -> None:
    manifest(tmp_path, [])
    (tmp_path / "manifest.tsv").unlink()
    (tmp_path / "wav.scp").write_text("".join(f"u{i}\t{i}.wav\n" for i in range(12)))
    (tmp_path / "text").write_text("u0\n" + "".join(f"u{i}\tA  B\n" for i in range(1, 12)))
    found = speech.Recordings(*recordings.read(tmp_path))
    assert found.ids[11] == "u11" and found.texts == ["", *["A B"] * 11]
    assert len(found.load(11)[0]) == 1011


@pytest.mark.parametrize("name", ["wav.scp", "utt2spk"])
def test_a_name_of_kaldi_s_with_nothing_behind_it_is_told(name: str, tmp_path: Path) -> None:
    manifest(tmp_path, [])
    (tmp_path / "manifest.tsv").unlink()
    for file in ("text", "wav.scp", "utt2spk"):
        (tmp_path / file).write_text("u0 0.wav\n")
    (tmp_path / name).write_text("u0 0.wav\nu1\n")
    with pytest.raises(UserError, match=f"{name}, line 2: there is nothing behind u1$"):
        recordings.read(tmp_path)


def test_lines_of_a_manifest_end_at_their_end_only(tmp_path: Path) -> None:
    """Not at the characters of Unicode that end a line elsewhere; a byte order mark is none."""
    lines = ["\ufeffpath\ttext", *(f"{i}.wav\tone\u2028two" for i in range(12))]
    found = speech.Recordings(*recordings.read(manifest(tmp_path, lines)))
    assert found.texts == ["one two"] * 12


@pytest.mark.parametrize(
    "lines, told",
    [
        (["0.wav"], "line 1: not path<TAB>text"),
        (["0.wav\ta\tb\tdevel"], "the part 'devel' is not"),
        (["0.wav\ta", "99.wav\tb", "98.wav\tc"], "2 recordings are not there, such as .*99.wav"),
        (["0.wav\ta"], "has no recordings for valid"),
    ],
)
def test_bad_manifests_are_told_in_one_line(lines: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        recordings.read(manifest(tmp_path, lines, count=2))


def test_a_corpus_that_is_none(tmp_path: Path) -> None:
    config = configs.default("speech")
    for corpus, told in ((str(tmp_path / "no"), "no corpus of speech"),
                         (str(tmp_path), "neither manifest.tsv")):  # fmt: skip
        config.corpus = corpus
        with pytest.raises(UserError, match=told):
            speech.read(config, print)
