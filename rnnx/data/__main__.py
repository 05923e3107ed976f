"""Prepares a corpus and prints what it holds; training does so by itself.

python -m rnnx.data --corpus=ptb_word [--data_dir=DIR]
"""

import sys

from absl import flags

from rnnx import cli
from rnnx.data.catalogue import SOURCES
from rnnx.data.corpus import load_from
from rnnx.data.store import SPLITS
from rnnx.data.vocabulary import LEVELS


def define_flags() -> None:
    flags.DEFINE_string("corpus", None, f"{', '.join(SOURCES)}, python or a file", required=True)
    flags.DEFINE_enum("level", "char", LEVELS, "level of an own file")
    flags.DEFINE_string("data_dir", "", "where raw files are or go")


def main() -> None:
    values = flags.FLAGS
    corpus, home = load_from(
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
