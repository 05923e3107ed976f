"""Nearest sentences: what a network that reads sentences takes for alike."""

import html
from collections.abc import Sequence

import numpy as np

from rnnx.analysis.page import document
from rnnx.data.sentences import words
from rnnx.tasks.vectors import Encoder

QUERIES = 8  # sentences of the text itself, where none is asked for
COUNT = 5

_STYLE = "td { padding: .1rem .6rem; vertical-align: top; } td:first-child { color: #555; }"


def numbers(encoder: Encoder, queries: Sequence[str], texts: Sequence[str]) -> list[dict]:
    """Each query with the sentences of the text that have the highest cosine with it.

    Args:
      queries: sentences; none for eight of the text, evenly spaced.
      texts: the sentences of the text; of equal ones the first counts, the query's own does not.
    """
    known = list(dict.fromkeys(texts))
    places = np.linspace(0, len(known) - 1, QUERIES).astype(int)
    queries = list(queries) or [known[i] for i in dict.fromkeys(places.tolist())]
    parted = [words(text) for text in known]
    asked = [words(query) for query in queries]
    cosines = encoder.vectors(asked) @ encoder.vectors(parted).T
    found = []
    for query, own, row in zip(queries, asked, cosines, strict=True):
        order = [i for i in np.argsort(-row, kind="stable")[: COUNT + 1] if parted[i] != own]
        nearest = [{"cosine": float(row[i]), "sentence": known[i]} for i in order[:COUNT]]
        found.append({"query": query, "nearest": nearest})
    return found


def page(title: str, about: str, found: list[dict]) -> str:
    """One HTML page: a table for each query."""
    body = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(about)}</p>"]
    for entry in found:
        rows = "".join(
            f"<tr><td>{near['cosine']:.2f}</td><td>{html.escape(near['sentence'])}</td></tr>"
            for near in entry["nearest"]
        )
        body.append(f"<h2>{html.escape(entry['query'])}</h2>\n<table>{rows}</table>")
    return document(title, body, _STYLE)
