"""Parse a manifest: bytes in, rows with their positions out.

``read_rows`` decodes bytes and detects the format by the first character. CSV and JSON Lines are
read line by line, a JSON array as a whole. A row that cannot be parsed becomes a RowFault among
the rows; if the rows after it cannot be trusted either, reading ends with UnreadableError.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Any, BinaryIO, TextIO

from orchestrator.errors import RowFault
from orchestrator.manifest.column_rules import RULES, Problem, escaped

MAX_LINE = 2**20
"""Characters of a line. A disk image that is given by mistake must not fill the memory."""

MAX_ARRAY = 64 * 2**20
"""Characters of a JSON array, which is read as a whole."""

# errors="surrogateescape" turns each byte that is not UTF-8 into one of these characters
_NOT_TEXT = re.compile("[\0\udc80-\udcff]")
_UTF16_MARKS = ("\udcff\udcfe", "\udcfe\udcff")
_IMAGE_ID = re.compile(r"img-[0-9a-z]+")
_OTHER_DELIMITER = re.compile(r"[;\t|]")


@dataclass(frozen=True, slots=True)
class Header:
    """The columns that the first row of CSV names."""

    line: int
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One row that is not yet checked.

    Args:
        number: its position, counted from 1.
        cells: the known columns of CSV, or every key of a JSON object.
        unit: what the number counts: a line of the file, or an object of an array.
    """

    number: int
    cells: Mapping[str, object]
    unit: str = "line"


class UnreadableError(Exception):
    """The manifest cannot be read any further."""

    def __init__(self, *faults: RowFault) -> None:
        super().__init__(*faults)
        self.faults = faults


def read_rows(stream: BinaryIO) -> Generator[Header | Row | RowFault, None, None]:
    """Yield the rows of a manifest, for CSV after their header; the stream stays open.

    Raises:
        UnreadableError: the manifest is empty, or cannot be read any further.
    """
    # bytes that are not UTF-8 pass the decoder, so that they are the fault of their row alone
    text = TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
    try:
        line, first = _first_line(text)
        match first.lstrip()[0]:
            case "[":
                yield from _array_rows(first + text.read(MAX_ARRAY), line)
            case "{":
                yield from _json_line_rows(_lines(text, first, line), line)
            case _:
                yield from _csv_rows(_lines(text, first, line), line)
    finally:
        text.detach()


def row_fault(number: int, column: str, problem: Problem, unit: str = "line") -> RowFault:
    """Return a problem as the fault of a row; the column's name may be any text."""
    return RowFault(number, escaped(column), problem.reason, problem.remedy, unit)


def _first_line(text: TextIO) -> tuple[int, str]:
    """Return number and text of the first line that is not blank."""
    line, first = 1, text.readline(MAX_LINE + 1)
    while first and not first.strip():
        line, first = line + 1, text.readline(MAX_LINE + 1)
    if not first:
        raise _unreadable(1, "the manifest is empty.", "Add a row for each image.")
    if first.startswith(_UTF16_MARKS):
        remedy = 'Save it as UTF-8 (in Excel: "CSV UTF-8").'
        raise _unreadable(1, "the manifest is written in UTF-16.", remedy)
    return line, first


def _lines(text: TextIO, first: str, line: int) -> Iterator[str]:
    while first:
        if len(first) > MAX_LINE:
            reason = f"the line is longer than {MAX_LINE} characters."
            raise _unreadable(line, reason, "Check that this file is a manifest.")
        yield first
        line, first = line + 1, text.readline(MAX_LINE + 1)


def _csv_rows(lines: Iterator[str], line: int) -> Iterator[Header | Row | RowFault]:
    header = None
    for number, record in _csv_records(lines, line):
        if header is not None:
            yield record if isinstance(record, RowFault) else _csv_row(header, number, record)
        elif isinstance(record, RowFault):
            raise UnreadableError(record)
        else:
            header = _csv_header(number, record)
            yield header
    if header is None:
        remedy = "Begin with the names of the columns, as in image_id,region,bucket."
        raise _unreadable(line, "the header names no column.", remedy)


def _csv_records(
    lines: Iterator[str], first_line: int
) -> Iterator[tuple[int, list[str] | RowFault]]:
    """Yield each record with its first line; records of empty cells are left out."""
    # strict, or a quote that is never closed would swallow the rest of the file unnoticed
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    while True:
        line = first_line + reader.line_num
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            limit = csv.field_size_limit()
            remedy = f"Check that each quote is closed and no cell exceeds {limit} characters."
            fault = RowFault(line, "", f"is not CSV: {error}.", remedy)
            if first_line + reader.line_num > line + 1:  # other rows may be among its lines
                raise UnreadableError(fault) from None
            yield line, fault
        else:
            if any(cells):
                yield line, cells


def _csv_header(line: int, names: list[str]) -> Header:
    if fault := _not_text(line, "".join(names)):
        raise UnreadableError(fault)
    if any(_IMAGE_ID.fullmatch(name) for name in names):
        remedy = "Put a header above it, as in image_id,region,bucket."
        raise _unreadable(line, "the header is missing: this line contains an image id.", remedy)
    if len(names) == 1 and _OTHER_DELIMITER.search(names[0]):
        remedy = "Save the manifest with commas."
        raise _unreadable(line, "the columns are not separated by commas.", remedy)
    ((name, count),) = Counter(filter(None, names)).most_common(1)
    if count > 1:
        problem = Problem("the column is listed twice in the header.", "Remove one of the two.")
        raise UnreadableError(row_fault(line, name, problem))
    return Header(line, tuple(names))


def _csv_row(header: Header, line: int, cells: list[str]) -> Row | RowFault:
    if len(cells) != len(header.columns):
        reason = f"has {len(cells)} cells, but the header has {len(header.columns)} columns."
        remedy = "Put cells that contain a comma into quotes, and leave no cell out."
        return RowFault(line, "", reason, remedy)
    named = zip(header.columns, cells, strict=True)
    row = Row(line, {name: cell for name, cell in named if name in RULES})
    return _not_text(line, "".join(cells)) or row


def _json_line_rows(lines: Iterator[str], line: int) -> Iterator[Row | RowFault]:
    for number, text in enumerate(lines, line):
        if text.strip():
            try:
                yield _json_row(number, _parse_json(text.rstrip(), number), "line")
            except UnreadableError as error:  # the next line is an object of its own
                yield from error.faults


def _array_rows(text: str, line: int) -> Iterator[Row | RowFault]:
    if len(text) > MAX_ARRAY:
        remedy = "Write one object on each line, without the brackets of the array."
        raise _unreadable(line, f"the array is longer than {MAX_ARRAY} characters.", remedy)
    for number, value in enumerate(_parse_json(text, line), 1):
        yield _json_row(number, value, "object")


class _RepeatedKey(dict[str, Any]):
    """A JSON object in which a key occurs twice."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
    return _RepeatedKey(key)


_DECODER = json.JSONDecoder(object_pairs_hook=_json_object)


def _parse_json(text: str, line: int) -> Any:
    """Return the value of a text that begins on this line."""
    if fault := _not_text(line, text):
        raise UnreadableError(fault)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        reason = f"{error.msg} (column {error.colno})"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError:  # Python reads no integer of more than 4300 digits
        reason = "a number has too many digits"
    remedy = "Write one object on each line, or one array of objects, with no comma after the last."
    raise _unreadable(line, f"is not JSON: {reason}.", remedy)


def _json_row(number: int, value: object, unit: str) -> Row | RowFault:
    if isinstance(value, _RepeatedKey):
        problem = Problem("the key is given twice.", "Remove one of the two.")
        return row_fault(number, value.key, problem, unit)
    if isinstance(value, dict):
        return Row(number, value, unit)
    remedy = 'Write rows as {"image_id": "img-1a2b3c4d"}.'
    return RowFault(number, "", "is not a JSON object.", remedy, unit)


def _not_text(line: int, text: str) -> RowFault | None:
    """Return a fault if a text that begins on this line contains what no text file should."""
    found = _NOT_TEXT.search(text)
    if found is None:
        return None
    line += text.count("\n", 0, found.start())
    if found[0] == "\0":
        reason = "contains NUL characters, as a binary file does, or UTF-16 without a mark."
        return RowFault(line, "", reason, "Save the manifest as plain UTF-8 text.")
    return RowFault(line, "", "is not valid UTF-8.", "Save the manifest as UTF-8.")


def _unreadable(line: int, reason: str, remedy: str) -> UnreadableError:
    return UnreadableError(RowFault(line, "", reason, remedy))
