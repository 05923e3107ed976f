"""One HTML page with everything in it, which opens without a network."""

import base64
import html
import io
from collections.abc import Sequence

from rnnx.analysis.pictures import Picture

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
img { max-width: 100%; } figure { margin: 0; } figcaption, .absent { color: #555; }
code { overflow-wrap: anywhere; }
"""


def png(picture: Picture) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    picture.figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def document(title: str, body: Sequence[str], style: str = "", head: str = "") -> str:
    """The page around its body.

    Args:
      body: HTML: what came from data is escaped already.
      style: CSS beyond that of all pages.
      head: HTML beyond that of all heads.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style>{head}</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def page(title: str, about: str, parts: Sequence[tuple[Picture, bytes] | str]) -> str:
    """The page: embedded PNGs with captions, or a line of text in place of a picture."""
    body = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(about)}</p>"]
    for part in parts:
        if isinstance(part, str):
            body.append(f'<p class="absent">{html.escape(part)}</p>')
            continue
        picture, data = part
        source = base64.b64encode(data).decode()
        heading, reading = html.escape(picture.title), html.escape(picture.reading)
        body.append(
            f'<h2>{heading}</h2>\n<figure><img alt="{heading}" '
            f'src="data:image/png;base64,{source}">\n<figcaption>{reading}</figcaption></figure>'
        )
    return document(title, body)
