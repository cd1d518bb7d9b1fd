"""From bytes to rows: CSV, JSON Lines or a JSON array, read piece by piece, each row with its line.

A row that cannot be read is a fault among the rows; where nothing after it can be trusted
either, reading ends with `UnreadableError`.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from typing import Any, BinaryIO, TextIO

from orchestrator.errors import RowFault, UsageError
from orchestrator.manifest.columns import RULES, Problem, escaped, repeated

LONGEST_LINE = 2**20
"""Characters of a line of CSV or of one JSON object: a disk image given by mistake is no manifest,
and must not fill the memory before that is found out."""

_CHUNK = 2**16
_SOLID = re.compile(r"[^ \t\n]")
_DAMAGE = re.compile("[\0\udc80-\udcff]")
_IMAGE_LIKE = re.compile(r"img-[0-9a-z]+")
_TOO_DEEP = "it is nested too deeply"
# how the byte order marks of UTF-16 look after they were read as UTF-8
_UTF16_MARKS = ("\udcff\udcfe", "\udcfe\udcff")


@dataclass(frozen=True, slots=True)
class Header:
    """The columns that CSV names, once, before its rows."""

    line: int
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was written.

    Args:
        cells: the known columns of CSV, or every key of a JSON object.
        within: which object of an array it is, as they may share a line.
    """

    line: int
    cells: Mapping[str, object]
    within: str = ""


class UnreadableError(UsageError):
    """From this line on nothing can be trusted."""

    def __init__(self, fault: RowFault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def read_rows(stream: BinaryIO) -> Iterator[Header | Row | RowFault]:
    """The rows of a manifest, whose first character tells CSV from JSON.

    Raises:
        UnreadableError: the manifest is empty, or cannot be read on.
    """
    text = TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
    try:
        line, first = _first_line(text)
        if first.lstrip().startswith("["):
            yield from _array_rows(_Window(text, first, line))
        elif first.lstrip().startswith("{"):
            yield from _json_rows(_lines(text, first, line), line)
        else:
            yield from _csv_rows(_lines(text, first, line), line)
    finally:
        text.detach()  # the stream stays open: it is the caller's


def fault_at(line: int, column: str, problem: Problem, within: str = "") -> RowFault:
    """A problem with its place; `within` is that of the row."""
    reason = f"{within}: {problem.reason}" if within else problem.reason
    return RowFault(line, escaped(column), reason, problem.remedy)


def _first_line(text: TextIO) -> tuple[int, str]:
    line, first = 0, "\n"
    while first and not first.strip():
        line, first = line + 1, text.readline(LONGEST_LINE + 1)
    if not first:
        raise _stop(1, "the manifest is empty.", "Add a row for each image.")
    if first.startswith(_UTF16_MARKS):
        remedy = 'Save it as UTF-8 (in Excel: "CSV UTF-8").'
        raise _stop(1, "the manifest is written in UTF-16.", remedy)
    return line, first


def _lines(text: TextIO, first: str, line: int) -> Iterator[str]:
    while first:
        if len(first) > LONGEST_LINE:
            reason = f"the line is longer than {LONGEST_LINE} characters."
            raise _stop(line, reason, "Check that this file is a manifest.")
        yield first
        line, first = line + 1, text.readline(LONGEST_LINE + 1)


def _csv_rows(lines: Iterator[str], line: int) -> Iterator[Header | Row | RowFault]:
    records = _records(lines, line)
    first = next(records, None)
    if first is None:
        remedy = "Begin with the columns' names, as in image_id,region,bucket."
        raise _stop(line, "the header names no column.", remedy)
    if isinstance(first, RowFault):
        raise UnreadableError(first)
    header = _header(*first)
    yield header
    _refuse_repeated_columns(header)
    for record in records:
        yield record if isinstance(record, RowFault) else _csv_row(header, *record)


def _records(lines: Iterator[str], line: int) -> Iterator[tuple[int, list[str]] | RowFault]:
    """Lines of CSV as cells without surrounding blanks; rows of empty cells are left out."""
    # strict, or a quote that is never closed would swallow the rest of the file unnoticed
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    before = line - 1
    while True:
        line = before + reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            fault = RowFault(
                line, "", f"is not CSV: {error}.", "Check the quotes and the length of its cells."
            )
            if before + reader.line_num > line:  # swallowed rows may be among its lines
                raise UnreadableError(fault) from None
            yield fault
        else:
            if any(cells):
                yield line, cells


def _header(line: int, names: list[str]) -> Header:
    if fault := next(filter(None, (_damage(line, "", name) for name in names)), None):
        raise UnreadableError(fault)
    if any(_IMAGE_LIKE.fullmatch(name) for name in names):
        remedy = "Put a header above it, as in image_id,region,bucket."
        raise _stop(line, "an image id stands where a header is needed.", remedy)
    if len(names) == 1 and re.search(r"[;\t|]", names[0]):
        remedy = "Save the manifest with commas."
        raise _stop(line, "the columns are not separated by commas.", remedy)
    return Header(line, tuple(names))


def _refuse_repeated_columns(header: Header) -> None:
    if twice := repeated(filter(None, header.columns)):
        problem = Problem("the column stands twice in the header.", "Remove one of the two.")
        raise UnreadableError(fault_at(header.line, twice, problem))


def _csv_row(header: Header, line: int, cells: list[str]) -> Row | RowFault:
    if len(cells) != len(header.columns):
        return RowFault(
            line,
            "",
            f"cells in this row: {len(cells)}; columns in the header: {len(header.columns)}.",
            "Put cells that hold a comma into quotes, and leave no cell out.",
        )
    if _DAMAGE.search("".join(cells)):
        return next(filter(None, map(partial(_damage, line), header.columns, cells)))
    named = zip(header.columns, cells, strict=True)
    return Row(line, {name: cell for name, cell in named if name in RULES})


def _json_rows(lines: Iterator[str], line: int) -> Iterator[Row | RowFault]:
    for number, text in enumerate(lines, line):
        if text.strip():
            yield _damage(number, "", text) or _json_row(number, text)


def _json_row(line: int, text: str) -> Row | RowFault:
    try:
        return _as_row(line, _DECODER.decode(text))
    except json.JSONDecodeError as error:
        return _json_fault(line, f"{error.msg} (column {error.colno})")
    except RecursionError:
        return _json_fault(line, _TOO_DEEP)


def _array_rows(window: "_Window") -> Iterator[Row | RowFault]:
    """The array's elements one by one, so that the whole never stands in memory."""
    separator = window.take("[")
    if window.peek() == "]":
        separator = window.take("]")
    while separator != "]":
        yield window.element()
        separator = window.take(",]")
    if window.peek():
        remedy = "Remove what stands after the ]."
        raise _stop(window.line, "text follows the end of the array.", remedy)


class _Window:
    """The stretch of a JSON array that is being read, and its line."""

    def __init__(self, text: TextIO, start: str, line: int) -> None:
        self._text = text
        self._held = start
        self._at = 0
        self._objects = 0
        self.line = line

    def take(self, expected: str) -> str:
        """Goes past the next character, which has to be one of those expected."""
        found = self.peek()
        if not found or found not in expected:
            reason = f"is not JSON: {' or '.join(expected)} is missing."
            remedy = "Put commas between the objects, and one ] at the end."
            raise _stop(self.line, reason, remedy)
        self._advance(self._at + 1)
        return found

    def peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            found = _SOLID.search(self._held, self._at)
            self._advance(found.start() if found else len(self._held))
            if self._at < len(self._held) or not self._refill():
                return self._held[self._at : self._at + 1]

    def element(self) -> Row | RowFault:
        """The next value, which should be an object."""
        self.peek()
        value, end = self._decode()
        line, text = self.line, self._held[self._at : end]
        self._advance(end)
        self._objects += 1
        return _damage(line, "", text) or _as_row(line, value, f"object {self._objects}")

    def _decode(self) -> tuple[Any, int]:
        # what cannot be read, or ends a number, may only be cut off at the window's edge
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
            except json.JSONDecodeError as error:
                if len(self._held) - self._at > LONGEST_LINE or not self._refill():
                    line = self.line + self._held.count("\n", self._at, error.pos)
                    raise UnreadableError(_json_fault(line, error.msg)) from None
            except RecursionError:
                raise UnreadableError(_json_fault(self.line, _TOO_DEEP)) from None
            else:
                if end < len(self._held) or not self._refill():
                    return value, end

    def _refill(self) -> bool:
        more = self._text.read(_CHUNK)
        if more:
            self._held, self._at = self._held[self._at :] + more, 0
        return bool(more)

    def _advance(self, end: int) -> None:
        self.line += self._held.count("\n", self._at, end)
        self._at = end


class _Object(dict[str, Any]):
    """A JSON object that remembers a key given twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = repeated(name for name, _ in pairs)


def _whole(digits: str) -> int | float:
    # int() refuses thousands of digits with an error of its own; no column takes a float
    return int(digits) if len(digits) < 20 else float(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_int=_whole)


def _as_row(line: int, value: object, within: str = "") -> Row | RowFault:
    if not isinstance(value, _Object):
        problem = Problem("is not a JSON object.", 'Write rows as {"image_id": "img-1a2b3c4d"}.')
        return fault_at(line, "", problem, within)
    if value.twice is not None:
        problem = Problem("the key stands twice.", "Remove one of the two.")
        return fault_at(line, value.twice, problem, within)
    return Row(line, value, within)


def _json_fault(line: int, reason: str) -> RowFault:
    remedy = "Write one object on each line, or one array of objects, with no comma after the last."
    return RowFault(line, "", f"is not JSON: {reason}.", remedy)


def _stop(line: int, reason: str, remedy: str) -> UnreadableError:
    return UnreadableError(RowFault(line, "", reason, remedy))


def _damage(line: int, column: str, text: str) -> RowFault | None:
    """A fault where text holds what no text file should; `column` is for the message."""
    found = _DAMAGE.search(text)
    if found is None:
        return None
    if found[0] != "\0":
        return RowFault(line, escaped(column), "is not valid UTF-8.", "Save the manifest as UTF-8.")
    reason = "holds NUL characters, as UTF-16 without a mark or a binary file does."
    return RowFault(line, escaped(column), reason, "Save the manifest as plain UTF-8 text.")
