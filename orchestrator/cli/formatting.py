"""Formatting of what commands print: JSON, CSV, colours, widths, counts, times and durations."""

import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

import typer

from orchestrator.clock import iso

if TYPE_CHECKING:
    from orchestrator.errors import RowFault
    from orchestrator.reporting.history import Job

COLOURS = {
    "verified": "green",
    "accepted": "cyan",
    "sending": "cyan",
    "unknown": "yellow",
    "failed": "red",
    "cancelled": "bright_black",
}
"""Colour of each state; other states have none."""

_MAX_FAULTS = 20
"""Lines for faults of a manifest on a screen."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a cell that begins with one of these (source: OWASP, CSV injection)."""


def to_json(value: Mapping[str, Any]) -> str:
    """Return a JSON object on one line; times are in UTC with ``Z``."""
    return json.dumps(value, default=iso, ensure_ascii=False)


@functools.cache
def job_columns() -> tuple[str, ...]:
    """Return the names of a job's fields in JSON and CSV, in their order."""
    from orchestrator.reporting.history import Job

    return tuple(field.name for field in dataclasses.fields(Job) if field.name != "size_gib")


def job_fields(job: "Job") -> dict[str, Any]:
    """Return a job as JSON and CSV show it."""
    return {name: getattr(job, name) for name in job_columns()}


def csv_cells(job: "Job") -> list[str]:
    """Return a job as a row of CSV."""
    return [_csv_cell(value) for value in job_fields(job).values()]


def _csv_cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)  # a negative priority is no formula
    text = ";".join(value) if isinstance(value, tuple) else str(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def colour(text: str, state: str) -> str:
    """Return the text in the colour of a state, if stdout is a terminal with colours."""
    has_colours = is_capable_terminal(sys.stdout) and not os.environ.get("NO_COLOR")
    if not has_colours or state not in COLOURS:
        return text
    return typer.style(text, fg=COLOURS[state])


def is_capable_terminal(stream: TextIO) -> bool:
    """Return whether the stream is a terminal that understands control sequences."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in {"", "dumb", "unknown"}


def printable(text: str) -> str:
    """Replace control characters: text from a server must not control the terminal.

    What stdout cannot encode is escaped, as it would be later, so that its width is known.
    """
    # blanks of all widths and bytes of file names that are no text control nothing
    shown = "".join(
        ch if ch.isprintable() or unicodedata.category(ch) in {"Zs", "Cs"} else " " for ch in text
    )
    # during a live display stdout is rich's, without an encoding
    encoding = sys.stdout.encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def text_width() -> int:
    """Return the maximum width of a line of text on stdout, in columns.

    It is 80 if stdout is not a terminal.
    """
    if not sys.stdout.isatty():
        return 80
    return min(max(shutil.get_terminal_size().columns, 60), 120)


def wrapped(text: str, width: int, indent: str = "", *, breaks_words: bool = True) -> list[str]:
    """Break a text into lines of at most ``width`` columns; keep blanks within lines.

    Args:
        width: East Asian wide characters take two columns, combining marks none.
        indent: begins the lines below the first word.
        breaks_words: whether a word that is longer than a line is broken.
    """
    from rich.cells import cell_len, chop_cells

    lines: list[str] = []
    for word in re.findall(r"\s*\S+", text):
        if cell_len(line := lines[-1] + word if lines else word) <= width:
            lines[-1:] = [line]
        else:
            begin, long = indent if lines else "", word.lstrip()
            parts = chop_cells(long, width - len(begin)) if breaks_words else [long]
            lines += [begin + part for part in parts]
    return lines


def exit_on_closed_pipe() -> None:
    """Let the process end silently when the reader of its output has ended.

    A reader such as ``head`` may end early.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def duration(seconds: float) -> str:
    """Return a duration such as ``45 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def utc_and_local(moment: datetime) -> str:
    """Return a time in UTC, and in the local time with its offset.

    The local time is left out if it is before year 1 or after year 9999.
    """
    try:
        return f"{iso(moment)} ({moment.astimezone().isoformat(' ', 'minutes')} here)"
    except (OverflowError, ValueError):  # in the local time it is before year 1 or after 9999
        return iso(moment)


def fault_lines(faults: Sequence["RowFault"]) -> Iterator[str]:
    """Yield the faults of a manifest as lines, equal faults of many rows as one line.

    Repeated rows are equal too, whichever row they repeat. Only the first `_MAX_FAULTS` lines are
    shown; a last line counts the other faults.
    """
    groups: dict[tuple[str, ...], list[RowFault]] = {}
    for fault in faults:
        reason = fault.reason if fault.repeats is None else ""
        kind = (fault.column, reason, fault.remedy, fault.unit)
        groups.setdefault(kind, []).append(fault)
    shown = list(groups.values())[:_MAX_FAULTS]
    for first, *others in shown:
        yield f"{len(others) + 1} rows, first {first}" if others else str(first)
    if left := len(faults) - sum(map(len, shown)):
        yield f"and {left} more (all of them with --json)"
