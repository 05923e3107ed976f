"""Corpora: found, downloaded, encoded, kept.

    corpus = data.load("ptb_word")               # or ptb_char, text8, enwik8, python, jsb, a file
    corpus.train                                 # (N,) ids, the smallest unsigned type for them
    corpus.vocabulary.decode(corpus.train[:9])

Raw files are looked for in `data_dir`, else `$RNNX_DATA`, else `<cache>/raw`, downloaded there if
missing, and their sums checked at every load. Prepared records lie in `<cache>/tfds`, in folders
keyed by content. `rnnx.cache` says where the cache is.

catalogue.py    the built-in corpora and tables, a row each
download.py     raw files: found, checked, downloaded
text.py         from bytes to ids; own files; the Python library
rolls.py        from a MATLAB file to piano rolls
vocabulary.py   symbols and their ids
store.py        prepared records
scratch.py      folders to work in unseen
corpus.py       a corpus by name
batches.py      windows of a text or of piano rolls
sequences.py    sequences of unequal length, padded and bucketed
series.py       containers: series to forecast, labelled sequences
frame.py        CSV and Parquet tables
times.py        columns of times
calendar.py     time steps, regular grids, calendar features
columns.py      the columns of a table by their role
regular.py      rows put on a regular grid
season.py       the season of series
leaks.py        covariates that tell the future, copied rows
table.py        from a table to series
archives.py     UCR, UEA and .npz files
parting.py      parts drawn of sequences
labelled.py     sequences with labels
cmapss.py       C-MAPSS
detect.py       the task that a file asks for
sets.py         published sets by name
__main__.py     the command
"""

from rnnx.data.catalogue import BUILT_IN, SOURCES
from rnnx.data.corpus import Corpus, load

__all__ = ["BUILT_IN", "SOURCES", "Corpus", "load"]
