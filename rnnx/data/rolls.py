"""From a MATLAB file to piano rolls."""

import io

from rnnx.data.batches import Pieces
from rnnx.data.vocabulary import Vocabulary


def keys(files: dict[str, bytes]) -> tuple[Vocabulary, list[Pieces]]:
    """Piano rolls of one file with the cells traindata, validdata and testdata; 88 keys."""
    from scipy.io import loadmat

    (data,) = files.values()
    cells = loadmat(io.BytesIO(data))
    splits = [Pieces.of(list(cells[f"{split}data"][0])) for split in ("train", "valid", "test")]
    return Vocabulary("roll", tuple(range(21, 109))), splits  # MIDI: A0 to C8
