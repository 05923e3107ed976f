"""Prepared corpora as TFDS datasets: records of ids, and all else in their metadata."""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from rnnx import cache
from rnnx.data.batches import Pieces
from rnnx.data.scratch import scratch
from rnnx.data.vocabulary import Vocabulary
from rnnx.errors import Outage, UserError, passing

SPLITS = ("train", "valid", "test")
RECORD = 65_536  # ids in one record

Split = np.ndarray | Pieces
Encode = Callable[[], tuple[Vocabulary, list[Split]]]


def prepare(home: Path, sums: dict[str, str], encode: Encode) -> None:
    """Writes what `encode` returns, with the sums of the raw files, to a new folder `home`.

    In a scratch folder, renamed at the end, so that processes doing the same never meet. (TFDS
    does so too, but under a name from `random`: the same one in processes seeded alike.)
    """
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(try_download_gcs=False)
    cache.make_private(home.parent)
    with scratch(home.parents[2], ".preparing-") as place:
        builder = _builder()(place / home.relative_to(home.parents[2]), sums, encode)
        try:
            builder.download_and_prepare(download_dir=f"{place}/downloads", download_config=config)
        except RuntimeError as error:  # array_record's word for a full disk
            if type(error) is not RuntimeError:
                raise
            raise OSError(None, " ".join(str(error).split()), str(cache.root())) from error
        try:
            os.rename(builder.data_dir, home)
        except OSError:
            if not home.exists():  # else another process was first, with the same
                raise


def read(home: Path) -> tuple[Vocabulary, list[Split]]:
    """The vocabulary and the three splits in `home`, record by record into one array each.

    Raises UserError for a damaged copy, Outage if it cannot be read now.
    """
    try:
        builder = _builder()(home)
        metadata = builder.info.metadata
        vocabulary = Vocabulary.from_json(metadata["vocabulary"])
        return vocabulary, [
            _read_split(builder.as_data_source(split), split, vocabulary, metadata)
            for split in SPLITS
        ]
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        if passing(error):
            raise Outage(f"cannot read {home} ({reason})") from error
        raise UserError(f"prepared copy is damaged: delete {home} ({reason})") from error


def _read_split(records, split: str, vocabulary: Vocabulary, metadata: dict) -> Split:
    pieces = split in metadata.get("ends", {})
    shape = (metadata["symbols"][split], *([vocabulary.size] if pieces else []))
    ids = np.empty(shape, vocabulary.dtype)
    room, end = ids.reshape(-1).view(np.uint8), 0
    for i in range(0, len(records), 64):  # some MB at a time
        for record in records.__getitems__(range(i, min(i + 64, len(records)))):
            start, end = end, end + len(record["ids"])
            room[start:end] = record["ids"]
    if end != len(room):
        raise ValueError(f"{end} bytes in {split} instead of {len(room)}")
    return Pieces(ids, metadata["ends"][split]) if pieces else ids


def _records(split: Split) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    ids = split.frames.ravel() if isinstance(split, Pieces) else split
    for i in range(0, len(ids), RECORD):
        yield i, {"ids": ids[i : i + RECORD].view(np.uint8)}


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
    class StoredCorpus(tfds.core.ShardBasedBuilder, skip_registration=True):
        """Splits of ids as records of little-endian bytes; all else is in `info.metadata`."""

        VERSION = tfds.core.Version("1.0.0")
        url_infos: ClassVar = {}  # or TFDS looks for a file of sums in this package

        def __init__(
            self, home: Path, sums: dict[str, str] | None = None, encode: Encode | None = None
        ):
            """home: <root>/<name>/<key>/<version>; the rest is for preparing."""
            self.name, self._sums, self._encode = home.parents[1].name, sums, encode
            config = tfds.core.BuilderConfig(name=home.parent.name)
            super().__init__(data_dir=home.parents[2], config=config, file_format="array_record")

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
            vocabulary, encoded = self._encode()
            splits = dict(zip(SPLITS, encoded, strict=True))
            self.info.metadata.update(
                format=1,
                vocabulary=vocabulary.to_json(),
                sums=self._sums,
                symbols={name: len(split) for name, split in splits.items()},
                ends={k: v.ends.tolist() for k, v in splits.items() if isinstance(v, Pieces)},
            )
            return {k: [functools.partial(_records, split)] for k, split in splits.items()}

    return StoredCorpus
