"""How runs stand, as one page that opens without a network and follows them in a browser."""

import html
import math
import time
from collections.abc import Sequence

from rnnx.analysis.page import document
from rnnx.duration import duration
from rnnx.report.state import Overview, Stand

SECONDS = 10  # between two pages
_CURVES = 60  # drawn; of more, those that run and the best
# The colours of Okabe and Ito, without yellow and black.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --soft: #5b5b5b; --line: #ddd;
        --grey: #b5b5b5; --bad: #b04a00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --soft: #a5a8ad; --line: #3a3d42; --grey: #63666c;
          --bad: #ff9455; }
}
body { color: var(--ink); background: var(--paper); max-width: 56rem; margin: 1rem auto; }
h1 { margin-bottom: .2rem; overflow-wrap: anywhere; } h2 { margin: 1.6rem 0 .4rem; }
.sum { font-size: 1.1rem; margin: .2rem 0; } .soft { color: var(--soft); font-size: .88rem; }
.all { height: .6rem; background: var(--line); border-radius: .3rem; overflow: hidden; }
.all i, .bar i { display: block; height: 100%; background: #0072B2; }
figure { max-width: 40rem; } svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
svg .grid { stroke: var(--line); stroke-width: 1; }
ul { list-style: none; padding: 0; margin: 0; }
li { display: grid; grid-template-columns: .8rem minmax(9rem, 2fr) minmax(8rem, 1fr)
     minmax(8rem, 1fr); gap: .1rem .7rem; align-items: center; padding: .45rem 0;
     border-top: 1px solid var(--line); font-variant-numeric: tabular-nums; }
li b { font-weight: 600; overflow-wrap: anywhere; } li .why { grid-column: 2 / -1; }
.dot { width: .7rem; height: .7rem; border-radius: 50%; background: var(--grey); }
.bar { display: block; height: .4rem; background: var(--line); border-radius: .2rem;
       overflow: hidden; }
.quiet, .failed, .why { color: var(--bad); }
@media (max-width: 36rem) {
  body { margin: .5rem auto; }
  li { grid-template-columns: .8rem 1fr auto; } li .progress { grid-column: 2 / -1; }
}
"""
_ORDER = {"running": 0, "quiet": 1, "failed": 2, "done": 3, "pruned": 4}


def page(found: Overview, name: str, refresh: int) -> str:
    """The page of an overview.

    Args:
      name: of what is shown.
      refresh: seconds after which a browser reads it again; 0: never.
    """
    colours = _colours(found)
    ended = found.count("done", "pruned", "failed") + sum(
        s.share for s in found.stands if s.state in ("running", "quiet")
    )
    share = ended / found.total if found.total else 0.0
    written = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(found.now))
    body = [
        f"<h1>{html.escape(name)}</h1>",
        f'<p class="sum">{html.escape(sentence(found))}</p>',
        f'<div class="all"><i style="width:{share:.1%}"></i></div>',
        f'<p class="soft">As of {written}{f", anew every {refresh} s" if refresh else ""}.</p>',
        *_figure(found, colours),
        *_list(found, colours),
    ]
    head = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
    return document(f"{share:.0%} {name}", body, _STYLE, head)


def sentence(found: Overview) -> str:
    """How the runs stand, and when the end is expected."""
    if not found.total:
        return "No runs yet."
    if found.over or not found.count("running", "quiet"):
        return f"{found.sentence()}."
    if (left := found.left) is None:
        return f"{found.sentence()}; the end can't be told yet."
    return f"{found.sentence()}; end expected {_clock(found.now, left)}, in {duration(left)}."


def _clock(now: float, seconds: float) -> str:
    """`14:35`, with the day if it is another."""
    then, today = time.localtime(now + seconds), time.localtime(now)
    same = then[:3] == today[:3]
    return time.strftime("%H:%M" if same else "%a %d %b, %H:%M", then)


def _sorted(found: Overview) -> list[Stand]:
    """What runs first, then the finished by their scores."""

    def key(stand: Stand) -> tuple:
        sign = 1 if stand.run.task.lower_is_better else -1
        score = math.inf if stand.best is None else sign * stand.best
        return _ORDER[stand.state], score if stand.state == "done" else 0.0

    return sorted(found.stands, key=key)


def _colours(found: Overview) -> dict[int, str]:
    """Colours of those that run and of the best, by the stand's id; others are grey."""
    return {id(s): c for s, c in zip(_sorted(found), _COLOURS, strict=False)}


def _list(found: Overview, colours: dict[int, str]) -> list[str]:
    items = []
    for stand in _sorted(found):
        colour = colours.get(id(stand), "var(--grey)")
        unit = stand.run.unit
        best = "-" if stand.best is None else f"valid {html.escape(unit.show(stand.best))}"
        bar = f'<span class="bar"><i style="width:{stand.share:.1%}"></i></span>'
        bar = "" if stand.state == "done" else bar
        items.append(
            f'<li><span class="dot" style="background:{colour}"></span>'
            f"<b>{_name(stand.run.name)}</b><span>{best}</span>"
            f'<span class="progress"><span class="soft {stand.state}">{_told(stand, found.now)}'
            f"</span>{bar}</span>{_why(stand.reason)}</li>"
        )
    for name, reason in found.refused:
        items.append(
            f'<li><span class="dot"></span><b>{_name(name)}</b><span>-</span>'
            f'<span class="progress soft failed">failed</span>{_why(reason)}</li>'
        )
    return ["<h2>Runs</h2>", f"<ul>{''.join(items)}</ul>"] if items else []


def _name(name: str) -> str:
    """A name that may be broken after its commas."""
    return html.escape(name).replace(",", ",<wbr>")


def _why(reason: str) -> str:
    return f'<span class="why soft">{html.escape(reason)}</span>' if reason else ""


def _told(stand: Stand, now: float) -> str:
    """`45%, until 14:35`."""
    if stand.state == "done":
        return f"done in {duration(stand.took)}"
    if stand.state in ("pruned", "failed"):
        return f"{stand.state} after {len(stand.run.valid)} epochs"
    parts = [f"{stand.share:.0%}"] if stand.updates else [f"{stand.step:,} updates"]
    if stand.state == "quiet":
        parts.append(f"no sign of life for {duration(stand.silent)}")
    elif stand.left is not None:
        parts.append(f"until {_clock(now, stand.left)}")
    return ", ".join(parts)


# ---------------------------------------------------------------------------- the figure

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 400, 240, 44, 24


def _figure(found: Overview, colours: dict[int, str]) -> list[str]:
    """Valid scores by epoch, as SVG whose text stays legible on a phone."""
    drawn = [s for s in _sorted(found) if s.run.valid][:_CURVES]
    units = {s.run.unit.name for s in drawn}
    if not drawn or len(units) > 1:
        return []
    unit = drawn[0].run.unit
    curves = [(s, s.run.epoch, s.run.shown(s.run.valid)) for s in drawn]
    values = [v for _, _, ys in curves for v in ys if math.isfinite(v)]
    if not values:
        return []
    low, high, last = min(values), max(values), max(x for _, xs, _ in curves for x in xs)
    log = unit.logarithmic and low > 0 and high > 4 * low
    to = math.log if log else float
    span = (to(high) - to(low)) or 1.0

    def at(epoch: float, value: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - 8) * (epoch - 1) / max(last - 1, 1)
        y = 8 + (_HEIGHT - _BOTTOM - 14) * (to(high) - to(value)) / span
        return f"{x:.1f},{y:.1f}"

    lines = []
    for tick in _ticks(low, high, log):
        y = at(1, tick).partition(",")[2]
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y}" y2="{y}"/>')
        label = f"{tick:,.0f}" if abs(tick) >= 100 else f"{tick:.3g}"
        lines.append(f'<text x="{_LEFT - 5}" y="{float(y) + 4}" text-anchor="end">{label}</text>')
    for epoch in sorted({1, (last + 1) // 2, last}):
        x = at(epoch, low).partition(",")[0]
        end = "end" if epoch == last and last > 1 else "middle"
        lines.append(f'<text x="{x}" y="{_HEIGHT - 6}" text-anchor="{end}">{epoch}</text>')
    for stand, xs, ys in reversed(curves):  # those that run on top
        colour = colours.get(id(stand), "var(--grey)")
        points = [at(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
        if len(points) == 1:
            x, y = points[0].split(",")
            lines.append(f'<circle cx="{x}" cy="{y}" r="2.5" style="fill:{colour}"/>')
        else:
            lines.append(f'<polyline style="stroke:{colour}" points="{" ".join(points)}"/>')
    name = html.escape(f"Valid {unit.name} by epoch")
    return [
        f"<h2>{name}</h2>",
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">'
        f"{''.join(lines)}</svg></figure>",
    ]


def _ticks(low: float, high: float, log: bool) -> Sequence[float]:
    """Some round numbers between two."""
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [m * 10.0**d for d in decades for m in (1, 2, 5)]
    else:
        raw = (high - low) / 4 or abs(high) or 1.0
        scale = 10.0 ** math.floor(math.log10(raw))
        step = next(m * scale for m in (1, 2, 5, 10) if m * scale >= raw)
        first = math.ceil(low / step)
        found = [k * step for k in range(first, first + 8)]
    inside = [v for v in found if low <= v <= high]
    return inside if len(inside) > 1 else [low, high] if high > low else [low]
