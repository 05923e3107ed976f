"""Speech from a folder of recordings to text: trained, scored, transcribed."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import call_module, words

from rnnx import decoders, streaming, transcribe
from rnnx.data import speech
from rnnx.data.series import Scaling
from rnnx.data.vocabulary import Vocabulary
from rnnx.errors import UserError
from rnnx.tasks import transcripts
from rnnx.trained import open_run


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Recordings of two tones, and a run on them."""
    home = tmp_path_factory.mktemp("speech")
    rng, lines = np.random.default_rng(0), []
    for i in range(20):
        text = "ab" if i % 2 else "ba ab"
        tones = [np.sin(np.arange(2400 + 100 * i) / (4 if c == "a" else 9)) for c in text]
        samples = np.concatenate(tones) * 0.3 + 0.01 * rng.normal(size=sum(map(len, tones)))
        soundfile.write(home / f"{i}.wav", samples, 16_000)
        lines.append(f"{i}.wav\t{text}")
    (home / "manifest.tsv").write_text("\n".join(lines) + "\n")
    done = call_module(
        "train", "--config=digits", f"--config.corpus={home}", f"--workdir={home / 'run'}",
        "--config.hidden_size=12", "--config.epochs=2", "--config.batch_size=4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return home, home / "run"


def test_files_that_cannot_be_read_do_not_stop_the_others(heard: tuple, tmp_path: Path) -> None:
    home, run = heard
    (tmp_path / "bad.wav").write_text("no sound")
    soundfile.write(tmp_path / "short.wav", np.zeros(10), 8000)
    files = [home / "1.wav", tmp_path / "bad.wav", home / "2.wav", tmp_path / "short.wav"]
    done = call_module("transcribe", f"--workdir={run}", *map(str, files))
    assert done.returncode == 2
    paths = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert paths == [str(files[0]), str(files[2])]
    assert "bad.wav is no sound file" in done.stderr and "short.wav: 1 ms of sound" in done.stderr
    one = call_module("transcribe", f"--workdir={run}", str(files[0]),
                      f"--alignments={tmp_path / 'when'}")  # fmt: skip
    lines = (tmp_path / "when" / "1.tsv").read_text().splitlines()
    assert lines[0] == "start\tend\tsymbol" and len(lines) == 1 + len(one.stdout.strip("\n"))
    assert (tmp_path / "when" / "1.png").read_bytes().startswith(b"\x89PNG")
    assert one.returncode == 0 and one.stdout.count("\n") == 1 and "\t" not in one.stdout


def test_an_alignment_is_in_seconds_and_has_the_name_of_its_file(tmp_path: Path) -> None:
    """Of 60 frames a hundredth of a second each, three to a step."""
    file = tmp_path / "talk.1.wav"
    soundfile.write(file, np.random.default_rng(0).normal(size=400 + 59 * 160), 16_000)
    p = np.full((20, 3), 0.01)
    p[:, 0], p[4, 2], p[18:, 1] = 0.9, 9.0, 9.0
    spec = {"sample_rate": 16_000, "frame_stack": 3, "symbols": ["a", "b"]}
    transcribe.align(spec, file, tmp_path / "when", [2, 1], np.log(p))
    assert {path.name for path in (tmp_path / "when").iterdir()} == {"talk.1.tsv", "talk.1.png"}
    lines = (tmp_path / "when" / "talk.1.tsv").read_text().splitlines()[1:]
    assert lines == ["0.12\t0.15\tb", "0.54\t0.60\ta"]


def test_what_the_network_reads_is_scaled_as_its_training_was(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).normal(5, 3, (90, 40))
    spec = {"frame_stack": 3, "scale_by": "utterance", "scaling": {}}
    alone = transcribe.read_by(spec, frames)
    np.testing.assert_allclose(alone.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(alone.std(axis=0), 1, atol=1e-3)
    width = alone.shape[1]
    scaling = Scaling(np.full(width, 5.0), np.full(width, 2.0))
    trained = transcribe.read_by(spec | {"scale_by": "train", "scaling": scaling.to_json()}, frames)
    steps = speech.steps_of(frames, 3)
    np.testing.assert_allclose(trained, (steps - 5) / 2, rtol=1e-4, atol=1e-5)


def test_a_recording_does_not_depend_on_the_others(heard: tuple) -> None:
    home, folder = heard
    run = open_run(folder)
    steps = [transcribe.heard(home / f"{i}.wav", run.spec) for i in range(5)]
    decode = transcripts.decoder(width=3)
    together = transcribe.transcripts(run, steps, decode)
    for one, (symbols, log_p) in zip(steps, together, strict=True):
        ((alone, own),) = transcribe.transcripts(run, [one], decode)
        assert alone == symbols
        np.testing.assert_allclose(own, log_p, atol=1e-5)


@pytest.fixture(scope="module")
def forward(heard: tuple) -> Path:
    """A run that reads forward only."""
    home, run = heard[0], heard[0] / "forward"
    done = call_module(
        "train", "--config=digits:streaming", f"--config.corpus={home}", f"--workdir={run}",
        "--config.hidden_size=12", "--config.epochs=1", "--config.batch_size=4",
        "--config.score_test=False",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return run


def test_a_stream_says_what_the_whole_does_whatever_its_pieces(heard: tuple, forward: Path) -> None:
    home, run, rng = heard[0], open_run(forward), np.random.default_rng(0)
    # Such a network changes its mind all the time.
    run = run._replace(params={k: rng.normal(size=p.shape) for k, p in run.params.items()})
    files = [home / f"{i}.wav" for i in (1, 2, 18)]
    offline = transcribe.transcripts(
        run, [transcribe.heard(file, run.spec) for file in files], transcripts.decoder()
    )
    assert all(len(set(symbols)) > 1 for symbols, _ in offline)
    listener = streaming.Listener(run)
    for file, (symbols, _) in zip(files, offline, strict=True):
        samples, _ = soundfile.read(file, dtype="float32")
        for longest in (200, 3000, 10**6):
            listener.begin()
            found, at = [], 0
            while at < len(samples):
                size = int(rng.integers(1, longest))
                found += listener.hear(samples[at : at + size])
                at += size
            assert found + listener.end() == symbols
    # Nothing is kept back that could be said: 64 frames less 4 are 20 steps of 3 frames.
    steps = []
    listener._step = lambda xs, carries: (steps.append(xs) or 0, carries)
    listener.begin()
    listener.hear(samples[: 400 + 63 * 160])
    assert run.spec["frame_stack"] == 3 and len(steps) == 20


def test_phones_are_parted_and_the_pace_is_that_of_the_sound(heard: tuple, forward: Path) -> None:
    run, rng = open_run(forward), np.random.default_rng(0)
    run = run._replace(params={k: rng.normal(size=p.shape) for k, p in run.params.items()})
    listener = streaming.Listener(run)
    samples, rate = soundfile.read(heard[0] / "18.wav", dtype="float32")
    said = {}
    for labels in ("char", "phone"):
        parts: list[str] = []
        pieces = streaming.of_samples(samples, rate)
        pace = streaming.listen(listener, pieces, run.spec | {"labels": labels}, parts.append)
        said[labels] = "".join(parts)
        assert pace.sound == len(samples) / rate
        mean = pace.work / (1 + -(-len(samples) // 1600))
        assert mean < pace.longest < pace.work
    assert len(said["char"]) > 1 and said["phone"] == " ".join(said["char"])
    assert str(streaming.Pace(2.0, 0.5, 0.05)) == (
        "2.0 s of sound in 0.50 s: real-time factor 0.250, longest wait 50 ms for 100 ms of sound"
    )


def test_half_a_sample_at_the_end_of_a_stream_is_left_out() -> None:
    given = np.array([-32768, 16384, 1], "<i2").tobytes()
    for data, count in ((given, 3), (given[:-1], 2), (given[:1], 0)):
        pieces = list(streaming.of_stream(io.BytesIO(data), 16_000))
        assert np.concatenate(pieces).tolist() == [-1, 0.5, 1 / 32768][:count]


def test_a_network_that_scales_by_the_speaker_does_not_stream(forward: Path) -> None:
    run = open_run(forward)
    with pytest.raises(UserError, match="that of its whole speaker: train with"):
        streaming.Listener(run._replace(spec=run.spec | {"scale_by": "speaker"}))


def test_stream_prints_each_letter_and_its_pace(heard: tuple, forward: Path) -> None:
    home, bidirectional = heard
    files = [str(home / "18.wav"), str(home / "none.wav"), str(home / "2.wav")]
    whole = call_module("transcribe", f"--workdir={forward}", *files)
    done = call_module("transcribe", f"--workdir={forward}", "--stream", *files)
    assert done.returncode == whole.returncode == 2 and "none.wav" in done.stderr
    assert done.stdout == whole.stdout and done.stderr.count("real-time factor") == 2
    samples, _ = soundfile.read(files[0], dtype="int16")
    given = io.TextIOWrapper(io.BytesIO(samples.astype("<i2").tobytes()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", given)
        done = call_module("transcribe", f"--workdir={forward}", "--stream", "-")
    assert done.stdout.strip("\n") == whole.stdout.splitlines()[0].partition("\t")[2]
    for args, told in (
        ([f"--workdir={bidirectional}", "--stream"], "--config.bidirectional=False"),
        ([f"--workdir={forward}", "--stream", "--width=4"], "neither --alignments nor --width"),
        ([f"--workdir={forward}"], "needs --stream"),
    ):
        done = call_module("transcribe", *args, "-")
        assert done.returncode == 2 and told in done.stderr, done.stderr


def test_beam_is_a_protocol_and_names_its_errors(heard: tuple) -> None:
    _, run = heard
    full = call_module("evaluate", f"--workdir={run}", "--split=test")
    path = call_module("evaluate", f"--workdir={run}", "--split=test", "--protocol=beam")
    assert full.returncode == path.returncode == 0, path.stderr
    cer = lambda done: done.stdout.split("(cer ")[1].split(",")[0]  # noqa: E731
    assert cer(full) == cer(path) and "wer " in path.stdout
    wide = call_module("evaluate", f"--workdir={run}", "--split=test", "--protocol=beam",
                       "--width=4")  # fmt: skip
    assert wide.returncode == 0, wide.stderr


def test_a_character_model_is_asked_as_the_text_goes_on(heard: tuple, tmp_path: Path) -> None:
    """Its log probabilities are those of the network, whatever the order of prefixes."""
    (tmp_path / "text.txt").write_text("ab ba ab\n" * 300)
    done = call_module(
        "train", "--config=quickstart:tiny", f"--config.corpus={tmp_path / 'text.txt'}",
        f"--workdir={tmp_path / 'lm'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lm = open_run(tmp_path / "lm")
    symbols = [" ", "A", "b", "z"]
    asked = decoders.CharacterModel(lm, symbols)
    first = asked.next([()])
    several = asked.next([(2,), (3,), (1,)])
    longer = asked.next([(2, 3)])
    again = decoders.CharacterModel(lm, symbols)
    again.next([()])
    again.next([(2,)])
    np.testing.assert_allclose(again.next([(2, 3)]), longer, atol=1e-5)
    from rnnx import model
    from rnnx.sample import start_of_text

    net = model.merge(lm.graphdef, lm.params)
    ids = [*start_of_text(lm.spec)[:1], *lm.spec.encode("ab")]
    logits, _ = net(np.array(ids)[:, None], net.stack.zero_carry(1))
    logits = np.asarray(logits[:, 0], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    known = [lm.spec.symbols.index(s) for s in " ab"]
    for found, row in ((first[0], 0), (several[0], 1), (longer[0], 2)):
        np.testing.assert_allclose(found[1:4], log_p[row, known], atol=1e-4)
        assert found[4] == pytest.approx(log_p[row].min(), abs=1e-4) and np.isneginf(found[0])
    # A symbol may be known in the other case alone; the model has to be of characters.
    large = Vocabulary("char", tuple(s.upper() for s in lm.spec.symbols))
    again = decoders.CharacterModel(lm._replace(spec=large), symbols)
    np.testing.assert_array_equal(again.next([()]), first)
    with pytest.raises(UserError, match="holds no language model of characters"):
        decoders.CharacterModel(lm._replace(spec=words(4)), symbols)
    _, run = heard
    (tmp_path / "words.txt").write_text("ab\nba\n")
    done = call_module(
        "evaluate", f"--workdir={run}", "--split=test", "--protocol=beam", "--width=4",
        f"--lm={tmp_path / 'lm'}", f"--words={tmp_path / 'words.txt'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"lm": "x"}, "--width=8"),
        ({"lm": "no/such", "width": 2}, "no/such"),
        ({"words": "no/such", "width": 2}, "cannot read the list of words"),
    ],
)
def test_bad_decoders(settings: dict, told: str) -> None:
    plain = {"width": 0, "lm": "", "lm_weight": 0.5, "bonus": 0.0, "words": ""}
    with pytest.raises(UserError, match=told):
        decoders.decoder_of(plain | settings, {"labels": "char", "symbols": ["a"]})


@pytest.mark.parametrize("name", ["lm", "words"])
def test_phones_have_no_letters_to_look_up(name: str) -> None:
    plain = {"width": 2, "lm": "", "lm_weight": 0.5, "bonus": 0.0, "words": ""}
    with pytest.raises(UserError, match="for networks that emit letters"):
        decoders.decoder_of(plain | {name: "x"}, {"labels": "phone", "symbols": ["AH"]})


def test_bad_calls_are_told_in_one_line(heard: tuple, tmp_path: Path) -> None:
    _, run = heard
    for args, told in (
        ([f"--workdir={run}"], "name the sound files"),
        (["a.wav"], "--workdir=... is missing"),
        ([f"--workdir={tmp_path}", "a.wav"], "is not a workdir"),
        ([f"--workdir={run}", "--protocol=x", "a.wav"], "Unknown command line flag"),
        ([f"--workdir={run}", "--alignments=x", "a/1.wav", "b/1.flac"], "2 files are called 1"),
    ):
        done = call_module("transcribe", *args)
        assert done.returncode == 2 and told in done.stderr, done.stderr
