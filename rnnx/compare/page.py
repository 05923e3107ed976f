"""The report as one HTML page, which opens without a network.

Whatever came from data (names of columns, classes, files, texts) passes through `_text`.
"""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from rnnx.analysis.page import document
from rnnx.analysis.pictures import Picture
from rnnx.compare import figures, words
from rnnx.compare.drawing import svg
from rnnx.report.table import Table

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --soft: #5b5b5b; --line: #ddd;
        --wash: #f4f6f8; --good: #00694e; --bad: #b04a00; --open: #5b5b5b; --warn: #fff3d6;
        --edge: #d08a00; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --soft: #a5a8ad; --line: #3a3d42; --wash: #202329;
          --good: #3ec59a; --bad: #ff9455; --open: #a5a8ad; --warn: #3b2f12; --edge: #d9a032; }
}
body { max-width: 56rem; color: var(--ink); background: var(--paper); }
h1 { line-height: 1.25; overflow-wrap: anywhere; } h3 { font-size: 1rem; margin-bottom: .4rem; }
figcaption, .absent, .soft { color: var(--soft); font-size: .9rem; }
figure, .wide { overflow-x: auto; }
figure svg { display: block; width: 100%; min-width: 34rem; height: auto; }
figure { margin: .5rem 0; break-inside: avoid; } figcaption { position: sticky; left: 0; }
a { color: inherit; } .verdicts { list-style: none; padding: 0; }
.verdicts li { border-left: .3rem solid var(--open); background: var(--wash); padding: .5rem .8rem;
               margin: .5rem 0; break-inside: avoid; }
.verdicts div { margin-top: .3rem; }
.verdicts li.good { border-color: var(--good); } .verdicts li.bad { border-color: var(--bad); }
.answer { font-weight: 700; color: var(--open); }
.answer.good { color: var(--good); } .answer.bad { color: var(--bad); }
.warn { border: .12rem solid var(--edge); background: var(--warn); padding: .3rem .9rem;
        border-radius: .3rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
         white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; font-weight: 600; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
         background: var(--paper); }
td:first-child { white-space: normal; min-width: 6.5rem; max-width: 11rem; }
td small { display: block; font-weight: 400; color: var(--soft); }
tr.floor td { color: var(--soft); } tr.best td { font-weight: 700; }
tr.behind small { color: var(--bad); }
pre { background: var(--wash); padding: .6rem .8rem; white-space: pre-wrap;
      overflow-wrap: anywhere; font-size: .85rem; }
dfn { font-style: normal; font-weight: 700; }
@media print { body { max-width: none; margin: 0; font-size: 11px; } figure svg { min-width: 0; }
               table { font-size: 9px; } th, td { padding: .2rem .35rem; } }
"""

_COLOURS = {"worth it": "good", "no difference": "good", "not worth it": "bad"}


def page(report: dict) -> str:
    """The page of a report (`rnnx.compare.report`) in which no number is NaN."""
    drawn = figures.of(report)
    body = [
        f"<h1>{_text(words.title(report))}</h1>",
        _paragraph(words.subtitle(report), "soft"),
        _paragraph(words.summary(report)),
        *_verdicts(report, drawn),
        *_data(report),
        *_scores(report),
        *_section("What it costs", _cost(report), drawn, "latency", "training"),
        *_section("How they learned", [], drawn, "curves"),
        *_section("What it predicts", _samples(report), drawn, "example"),
        *_section("", [], drawn, "steps", "tuning", "fractions"),
        *_control(report),
        *_method(report),
    ]
    return document(words.title(report), body, _STYLE)


def _text(value: Any) -> str:
    return html.escape(str(value))


def _paragraph(text: str, kind: str = "") -> str:
    return f"<p{f' class={kind}' if kind else ''}>{_text(text)}</p>"


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _section(
    heading: str, before: Sequence[str], drawn: dict[str, Picture | str], *names: str
) -> list[str]:
    """A heading, HTML, and the figures of these names; nothing where there are none."""
    parts = list(before)
    for name in names:
        if isinstance(drawn.get(name), str):
            parts.append(_paragraph(drawn[name], "absent"))
        elif name in drawn:
            parts += _figure(drawn[name], "h3" if heading else "h2")
    return [f"<h2>{_text(heading)}</h2>"] * bool(heading and parts) + parts


def _figure(picture: Picture, level: str = "h3") -> list[str]:
    name, reading = _text(picture.title), _text(picture.reading)
    image = svg(picture).replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)
    return [
        f"<{level}>{name}</{level}>",
        f"<figure>{image}<figcaption>{reading}</figcaption></figure>",
    ]


def _verdicts(report: dict, drawn: dict) -> list[str]:
    """The answers, with the numbers behind them, and what to take."""
    parts = []
    if report["data"].get("warnings"):
        parts.append('<p><a href="#warnings">Read the warnings about the data first.</a></p>')
    items = []
    for verdicts in words.verdicts(report):
        said = "".join(
            f"<div>{_text(v['sentence'])}<br>{_answer(v, words.EQUAL[v['equal']])}</div>"
            for v in verdicts
        )
        kind = _COLOURS.get(verdicts[0]["answer"], "open")
        items.append(f'<li class="{kind}"><dfn>{_text(verdicts[0]["question"])}</dfn>{said}</li>')
    parts.append(f'<ul class="verdicts">{"".join(items)}</ul>')
    if chosen := report["chosen"]:
        why = f" {chosen['why']}" if chosen.get("why") else ""
        parts.append(f"<p><strong>Chosen: {_text(chosen['model'])}.</strong>{_text(why)}</p>")
    if isinstance(drawn.get("differences"), Picture):
        parts += _figure(drawn["differences"])
    return parts


def _answer(entry: dict, equal: str = "") -> str:
    """The answer, with the numbers behind it."""
    kind = _COLOURS.get(entry["answer"], "open")
    numbers = f"{equal}: {words.tested(entry)}" if equal else words.tested(entry)
    numbers = numbers.replace(" %", "\N{NO-BREAK SPACE}%")
    return (
        f'<span class="answer {kind}">{_text(entry["answer"])}</span> '
        f'<span class="soft">{_text(numbers)}</span>'
    )


def _data(report: dict) -> list[str]:
    found = report["data"]
    parts = ["<h2>The data</h2>", _list(words.data(report))]
    if found.get("warnings"):
        parts.append(
            f'<div class="warn" id="warnings"><p><strong>Warnings</strong></p>'
            f"{_list(found['warnings'])}</div>"
        )
    if found.get("notes"):
        parts += ["<h3>What was mended</h3>", _list(found["notes"])]
    else:
        parts.append(_paragraph("Nothing had to be mended.", "absent"))
    return parts


def _scores(report: dict) -> list[str]:
    table = words.scores(report)
    kinds = ["floor"] * len(report["floors"])
    for model in words.ordered(report):
        said = words.notes(report, model)
        behind = ["behind"] if model.get("behind_floor") else []
        kinds.append(" ".join(["best"] * ("best" in said) + behind))
    # A note stands under its name: on a phone the last column is out of sight.
    told = table._replace(headings=table.headings[:-1], rows=[row[:-1] for row in table.rows])
    notes = [row[-1] for row in table.rows]
    return ["<h2>Scores</h2>", _table(told, kinds, notes), _paragraph(table.note, "soft")]


def _cost(report: dict) -> list[str]:
    table = words.cost(report)
    if table is None:
        return [_paragraph("The cost was not measured.", "absent")]
    nothing = [""] * len(table.rows)
    return [_table(table, nothing, nothing), _paragraph(table.note, "soft")]


def _table(table: Table, kinds: Sequence[str], notes: Sequence[str]) -> str:
    """The table, with a class and a note for each row."""
    head = "".join(f'<th scope="col">{_text(heading)}</th>' for heading in table.headings)
    rows = []
    for row, kind, note in zip(table.rows, kinds, notes, strict=True):
        below = f"<small>{_text(note)}</small>" if note else ""
        cells = "".join(f"<td>{_text(cell)}</td>" for cell in row[1:])
        rows.append(f'<tr class="{kind}"><td>{_text(row[0])}{below}</td>{cells}</tr>')
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _samples(report: dict) -> list[str]:
    return [
        f"<pre><strong>{_text(sample.get('prompt') or '')}</strong>{_text(sample['text'])}</pre>"
        for sample in (report["examples"] or {}).get("samples") or []
    ]


def _control(report: dict) -> list[str]:
    control = report["control"]
    if not control:
        return []
    about = "The LSTM is compared with itself under other seeds. No difference must be found."
    kind = _COLOURS.get(control["answer"], "bad")
    item = f'<li class="{kind}">{_text(control["sentence"])}<br>{_answer(control)}</li>'
    return ["<h2>Control</h2>", _paragraph(about), f'<ul class="verdicts">{item}</ul>']


def _method(report: dict) -> list[str]:
    parts = ["<h2>How it was done</h2>", _list(words.done(report))]
    if report["plan"].get("left_out"):
        parts += ["<h3>Left out</h3>", _list(report["plan"]["left_out"])]
    parts += ["<h3>Statistics</h3>", _paragraph(" ".join(words.STATISTICS))]
    if about := words.machine(report):
        parts += ["<h3>Machine</h3>", _paragraph(about)]
    commands = list(report["commands"] or [])
    if (report["chosen"] or {}).get("command"):
        commands.append(report["chosen"]["command"])
    if commands:
        lines = "\n".join(map(_text, dict.fromkeys(commands)))
        parts += ["<h3>Commands</h3>", f"<pre>{lines}</pre>"]
    return parts
