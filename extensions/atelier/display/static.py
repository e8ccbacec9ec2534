"""The state of runs and models as HTML that needs nothing: no script, no style sheet, no server.

What an executed notebook shows in any viewer. Every text is escaped; colours are the theme's where there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from atelier.display.evidence import attempt_rows, facts, is_explained, noticed, sentence, state_words
from atelier.display.text import lasted, run_progress_text

Curve = Sequence[Sequence[float | None]]

_TONES = {
    "succeeded": ("#2e7d32", "✓"), "failed": ("#d32f2f", "✕"), "lost": ("#e65100", "!"), "timed_out": ("#e65100", "!"),
    "running": ("#1976d2", "●"), "starting": ("#1976d2", "●"),
}  # fmt: skip
_QUIET = "opacity:.72"
_LINE = "1px solid rgba(128,128,128,.35)"
_CARD = (
    "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.45;max-width:60em;"
    f"border:{_LINE};border-radius:6px;padding:12px 14px;margin:2px 0"
)
_MONO = "font-family:var(--jp-code-font-family,ui-monospace,monospace);font-size:12px"
_CELL = f"text-align:{{}};padding:3px 14px 3px 0;border:0;border-bottom:{_LINE};white-space:nowrap"


def number_words(value: float | None) -> str:
    """Four significant digits; a value that is not finite is None in a record."""
    return "not finite" if value is None else f"{value:.4g}"


def run_html(run: Mapping[str, Any], curves: Mapping[str, Curve]) -> str:
    """A card of one run: state, what happened and what to do, progress, newest metrics, the user's own traceback."""
    parts = [
        _head(run),
        _why(run) if is_explained(run) else _paragraph(sentence(run)),
        _progress(run),
        *map(_warning, noticed(run)),
        _metrics(run.get("metrics", {}), curves),
        _foot(run),
    ]
    return f'<div class="atelier-run" style="{_CARD}">{"".join(parts)}</div>'


def runs_html(runs: Sequence[Mapping[str, Any]]) -> str:
    """A table of runs."""
    if not runs:
        return f'<div style="{_CARD}">No runs yet.</div>'
    rows = [
        (
            _mark(run["state"]) + escape(state_words(run)),
            escape(run["name"]),
            f'<code style="{_MONO}">{escape(run["id"])}</code>',
            escape(moment_words(run.get("started_at") or run["created_at"])),
            escape(lasted(run)),
            escape(", ".join(f"{name} {number_words(value)}" for name, value in list(run["metrics"].items())[:2])),
        )
        for run in runs
    ]
    return f'<div style="{_CARD}">{table(("State", "Run", "Id", "Started", "Took", "Metrics"), rows)}</div>'


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()) -> str:
    """An HTML table of cells that are HTML already; columns in ``right`` hold numbers."""
    style = [_CELL.format("right" if place in right else "left") for place in range(len(headings))]
    head = "".join(
        f'<th scope="col" style="{style[place]};font-weight:500;{_QUIET}">{text}</th>'
        for place, text in enumerate(headings)
    )
    body = "".join(
        "<tr>" + "".join(f'<td style="{style[place]}">{cell}</td>' for place, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;border:0;margin:6px 0;font-size:inherit;'
        f'font-variant-numeric:tabular-nums"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def moment_words(moment: str | None) -> str:
    """``"2026-11-24 05:46 UTC"``: a stored page can't know where it is read."""
    if not moment:
        return "–"
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M} UTC"


def _mark(state: str) -> str:
    colour, sign = _TONES.get(state, ("inherit", "○"))
    return f'<span style="color:{colour};font-weight:700;margin-right:6px" aria-hidden="true">{sign}</span>'


def _head(run: Mapping[str, Any]) -> str:
    words = [run["id"], run["image"], run["machine"], moment_words(run.get("started_at") or run["created_at"])]
    if run.get("started_at"):
        words.append(lasted(run))
    if len(run.get("attempts", [])) > 1:
        words.append(f"attempt {run['attempts'][-1]['n']}")
    if run.get("pinned"):
        words.append("pinned")
    title = f"<b>{escape(state_words(run))}</b> {escape(run['name'])}"
    return (
        f'<div style="font-size:15px">{_mark(run["state"])}{title}</div>'
        f'<div style="{_QUIET};font-size:12px">{escape(" · ".join(words))}</div>'
    )


def _paragraph(text: str) -> str:
    return f'<div style="margin-top:6px">{escape(text)}</div>' if text else ""


def _why(run: Mapping[str, Any]) -> str:
    """One card: what happened or what is waited for, the next action, the evidence below."""
    colour, _ = _TONES.get(run["state"], ("rgba(128,128,128,.6)", ""))
    known = "".join(
        f'<span style="margin-right:16px"><span style="{_QUIET}">{escape(name)}</span> {escape(value)}</span>'
        for name, value in facts(run)
    )
    parts = [
        f"<div><b>{escape(run.get('message') or state_words(run))}</b></div>",
        f"<div>{escape(run['hint'])}</div>" if run.get("hint") else "",
        f'<div style="font-size:12px;margin-top:4px">{known}</div>' if known else "",
        _attempts(run),
        _trace(run),
    ]
    return f'<div style="border-left:3px solid {colour};padding:4px 10px;margin:8px 0">{"".join(parts)}</div>'


def _attempts(run: Mapping[str, Any]) -> str:
    rows = [[escape(cell) for cell in row] for row in attempt_rows(run)]
    return table(("Attempt", "State", "Started", "Took", "Why it ended"), rows) if rows else ""


def _trace(run: Mapping[str, Any]) -> str:
    """The traceback of the last attempt, when the code's own error ended the run."""
    error = run["attempts"][-1].get("error") if run["state"] == "failed" and run.get("attempts") else None
    return (
        f'<pre style="{_MONO};margin:6px 0 0;overflow:auto;max-height:20em;background:none;color:inherit">'
        f"{escape(error['traceback'])}</pre>"
        if error
        else ""
    )


def _warning(text: str) -> str:
    return f'<div style="border-left:3px solid #e65100;padding:0 10px;margin-top:6px">{escape(text)}</div>'


def _progress(run: Mapping[str, Any]) -> str:
    words = run_progress_text(run)
    if not words or run.get("ended_at"):
        return _paragraph(words[:1].upper() + words[1:])
    total = run["progress"].get("total")
    percent = min(100.0, 100 * run["progress"]["done"] / total) if total else 0.0
    return (
        '<div style="height:6px;border-radius:3px;background:rgba(128,128,128,.25);margin:8px 0 3px">'
        f'<div style="height:6px;border-radius:3px;background:#1976d2;width:{percent:.1f}%"></div></div>'
        f'<div style="font-size:12px">{escape(words)}</div>'
    )


def _metrics(metrics: Mapping[str, float | None], curves: Mapping[str, Curve]) -> str:
    names = [name for name in metrics if not name.startswith(("system/", "process/", "gpu/"))][:12]
    if not names:
        return ""
    rows = [(escape(name), escape(number_words(metrics[name])), sparkline(curves.get(name, ()))) for name in names]
    return table(("Metric", "Newest", "Curve" if curves else ""), rows, right=frozenset({1}))


def sparkline(points: Curve, *, width: int = 160, height: int = 24) -> str:
    """A curve in the size of a word; empty for fewer than two finite points. ``points`` are ``[step, value, time]``."""
    values = [point[1] for point in points]
    finite = [value for value in values if value is not None]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    span = high - low or 1.0
    places = " ".join(
        f"{place * width / (len(values) - 1):.1f},{2 + (height - 4) * (1 - (value - low) / span):.1f}"
        for place, value in enumerate(values)
        if value is not None
    )
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="from {finite[0]:.4g} to {finite[-1]:.4g}">'
        f'<polyline points="{places}" fill="none" stroke="#1976d2" stroke-width="1.5"/></svg>'
    )


def _foot(run: Mapping[str, Any]) -> str:
    count = run.get("artifacts", 0)
    files = f"{count} file{'s' if count != 1 else ''} kept" if count else ""
    return f'<div style="{_QUIET};font-size:12px;margin-top:6px">{files}</div>' if files else ""
