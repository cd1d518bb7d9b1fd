"""Read requests from a manifest or from flags, or report all faults together.

The first character determines the format. CSV and JSON Lines are read line by line, a JSON array as
a whole. A row that cannot be parsed is a fault like any other; if the rows after it cannot be
trusted either, the manifest is refused.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Any, BinaryIO, TextIO

from orchestrator.errors import ManifestError, RowFault, UsageError
from orchestrator.manifest.column_rules import (
    COLUMNS,
    Problem,
    check,
    escaped,
    is_blank,
    unknown_column,
)
from orchestrator.manifest.export_request import (
    DEFAULTS,
    ExportRequest,
    check_fields,
    request_from_checked,
)

MAX_LINE = 2**20
"""Maximum characters of a line, so that a disk image given by mistake does not fill the memory."""

MAX_ARRAY = 64 * 2**20
"""Maximum characters of a JSON array, which is read as a whole."""

# errors="surrogateescape" turns each byte that is not UTF-8 into one of these characters
_NOT_TEXT = re.compile("[\0\udc80-\udcff]")
_UTF16_MARKS = ("\udcff\udcfe", "\udcfe\udcff")
_IMAGE_ID = re.compile(r"img-[0-9a-z]+")
_OTHER_DELIMITER = re.compile(r"[;\t|]")

_REQUIRED = {
    "image_ids": "Put it into a column image_id.",
    "region": "Add a column region, or give --region.",
    "bucket": "Add a column bucket, or give --bucket.",
}

Flags = Mapping[str, object]
"""Values of flags, by column name, as typed. A row takes them for the columns that it leaves
out."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The requests of a manifest, and what was left out of it.

    Args:
        requests: of the valid rows, in their order.
        faults: why each of the other rows was left out; a row may have several.
        ignored_columns: names of unknown columns, safe to print.
    """

    requests: tuple[ExportRequest, ...]
    faults: tuple[RowFault, ...] = ()
    ignored_columns: tuple[str, ...] = ()

    @property
    def invalid(self) -> int:
        """Number of rows that were left out."""
        return len({fault.number for fault in self.faults})


class _UnreadableError(Exception):
    """The manifest cannot be read any further."""

    def __init__(self, *faults: RowFault) -> None:
        super().__init__(*faults)
        self.faults = faults


def read_manifest(
    stream: BinaryIO, source: str, flags: Flags, *, skip_invalid: bool = False
) -> Manifest:
    """Read CSV, JSON Lines or a JSON array.

    Args:
        stream: read to its end, unless the manifest is refused before; left open.
        source: the manifest's name in messages.
        flags: for what a row leaves out.
        skip_invalid: leave out invalid rows and unknown columns instead of refusing the manifest.

    Raises:
        ManifestError: a row is invalid, and may not be skipped; or no row is valid; or the
            manifest as a whole cannot be used, as without a header.
        UsageError: a flag's value cannot be used.
    """
    reader = _Reader(_check_flags(flags), skip_invalid=skip_invalid)
    # let bytes that are not UTF-8 pass the decoder, so that only their own row is invalid
    text = TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
    try:
        reader.read(text)
    except _UnreadableError as error:
        raise ManifestError(source, (*reader.faults, *error.faults), in_rows=False) from None
    finally:
        text.detach()
    return reader.manifest(source)


def requests_from_images(
    image_ids: Sequence[str], flags: Flags, *, skip_invalid: bool = False
) -> Manifest:
    """Return a manifest with one request for each ``--image``.

    The number of a fault is the position of its image.

    Raises:
        ManifestError: as for a manifest.
        UsageError: another flag's value cannot be used, or is missing.
    """
    defaults = _check_flags(flags)
    for field in ("region", "bucket"):
        if field not in defaults:
            raise UsageError(f"No {field} is given.", f"Give it with --{field}.")
    reader = _Reader(defaults, skip_invalid=skip_invalid)
    for number, image_id in enumerate(image_ids, 1):
        reader.add(number, {"image_id": image_id}, "image")
    return reader.manifest("--image")


def _check_flags(flags: Flags) -> Mapping[str, Any]:
    """Check the flags; return the values for columns that a row leaves out."""
    values = {field: check(field, raw) for field, raw in flags.items() if not is_blank(raw)}
    for field, value in values.items():
        if isinstance(value, Problem):
            raise UsageError(f"--{field.replace('_', '-')}: {value.reason}", value.remedy)
    return {**DEFAULTS, **values}


class _Reader:
    """Turns the rows of one manifest into requests."""

    def __init__(self, defaults: Mapping[str, Any], *, skip_invalid: bool) -> None:
        self.faults: list[RowFault] = []
        self._defaults = defaults
        self._skip_invalid = skip_invalid
        self._requests: list[ExportRequest] = []
        self._first_rows: dict[tuple[object, ...], int] = {}  # by the identity of the request
        self._ignored_columns: dict[str, None] = {}  # an ordered set

    def manifest(self, source: str) -> Manifest:
        """Return the valid requests, the faults and the ignored columns.

        Raises:
            ManifestError: no row is valid, or there are faults and ``skip_invalid`` is not set.
        """
        requests, faults = tuple(self._requests), tuple(self.faults)
        if not requests and not faults:
            empty = RowFault(1, "", "the manifest has no rows.", "Add a row for each image.")
            raise ManifestError(source, (empty,), in_rows=False)
        if faults and not (self._skip_invalid and requests):
            raise ManifestError(source, faults, in_rows=not self._skip_invalid)
        return Manifest(requests, faults, tuple(self._ignored_columns))

    def read(self, text: TextIO) -> None:
        """Read all rows of a text; collect their requests and faults.

        Raises:
            _UnreadableError: the manifest is empty, or cannot be read any further.
        """
        line, first = 1, text.readline(MAX_LINE + 1)
        while first.isspace():
            line, first = line + 1, text.readline(MAX_LINE + 1)
        if not first:
            raise _unreadable(1, "the manifest is empty.", "Add a row for each image.")
        if first.startswith(_UTF16_MARKS):
            remedy = 'Save it as UTF-8 (in Excel: "CSV UTF-8").'
            raise _unreadable(1, "the manifest is written in UTF-16.", remedy)
        match first.lstrip()[0]:
            case "[":
                self._read_array(first + text.read(MAX_ARRAY), line)
            case "{":
                self._read_json_lines(_lines(text, first, line), line)
            case _:
                self._read_csv(_lines(text, first, line), line)

    def _read_csv(self, lines: Iterator[str], first_line: int) -> None:
        columns: list[str] = []
        # strict: otherwise an unclosed quote would turn the rest of the file into one cell
        reader = csv.reader(lines, strict=True, skipinitialspace=True)
        while True:
            line = first_line + reader.line_num
            try:
                cells = [cell.strip() for cell in next(reader)]
            except StopIteration:
                break
            except csv.Error as error:
                limit = csv.field_size_limit()
                remedy = f"Check that each quote is closed and no cell exceeds {limit} characters."
                fault = RowFault(line, "", f"is not CSV: {error}.", remedy)
                # a fault that spans several lines may hide other rows
                if not columns or first_line + reader.line_num > line + 1:
                    raise _UnreadableError(fault) from None
                self.faults.append(fault)
                continue
            if columns and any(cells):
                self._add_cells(line, columns, cells)
            elif any(cells):
                columns = cells
                self._check_header(line, columns)
        if not columns:
            remedy = "Begin with the names of the columns, as in image_id,region,bucket."
            raise _unreadable(first_line, "the header names no column.", remedy)

    def _check_header(self, line: int, names: Sequence[str]) -> None:
        """Report unknown columns; raise an error if a required column is missing."""
        if fault := _not_text(line, "".join(names)):
            raise _UnreadableError(fault)
        if any(_IMAGE_ID.fullmatch(name) for name in names):
            reason = "the header is missing: this line contains an image id."
            raise _unreadable(line, reason, "Put a header above it, as in image_id,region,bucket.")
        if len(names) == 1 and _OTHER_DELIMITER.search(names[0]):
            reason = "the columns are not separated by commas."
            raise _unreadable(line, reason, "Save the manifest with commas.")
        ((name, count),) = Counter(filter(None, names)).most_common(1)
        if count > 1:
            reason = "the column is listed twice in the header."
            raise _unreadable(line, reason, "Remove one of the two.", name)
        self._check_names(names, line)
        given = {*names, "image_ids" if "image_id" in names else ""}
        _, problems = check_fields({}, self._defaults, _REQUIRED)
        missing = [(field, problem) for field, problem in problems.items() if field not in given]
        if missing:
            raise _UnreadableError(*(_fault(line, *one) for one in missing))

    def _add_cells(self, line: int, columns: Sequence[str], cells: Sequence[str]) -> None:
        if len(cells) != len(columns):
            reason = f"has {len(cells)} cells, but the header has {len(columns)} columns."
            remedy = "Put cells that contain a comma into quotes, and leave no cell out."
            self.faults.append(RowFault(line, "", reason, remedy))
        elif fault := _not_text(line, "".join(cells)):
            self.faults.append(fault)
        else:
            named = zip(columns, cells, strict=True)
            self.add(line, {name: cell for name, cell in named if name in COLUMNS})

    def _read_json_lines(self, lines: Iterator[str], first_line: int) -> None:
        for number, text in enumerate(lines, first_line):
            if text.strip():
                try:
                    value = _parse_json(text.rstrip(), number)
                except _UnreadableError as error:  # the next line is an object of its own
                    self.faults += error.faults
                else:
                    self._add_object(number, value, "line")

    def _read_array(self, text: str, line: int) -> None:
        if len(text) > MAX_ARRAY:
            reason = f"the array is longer than {MAX_ARRAY} characters."
            remedy = "Write one object on each line, without the brackets of the array."
            raise _unreadable(line, reason, remedy)
        for number, value in enumerate(_parse_json(text, line), 1):
            self._add_object(number, value, "object")

    def _add_object(self, number: int, value: object, unit: str) -> None:
        match value:
            case _RepeatedKey():
                problem = Problem("the key is given twice.", "Remove one of the two.")
                self.faults.append(_fault(number, value.key, problem, unit))
            case dict():
                self.add(number, value, unit)
            case _:
                remedy = 'Write rows as {"image_id": "img-1a2b3c4d"}.'
                self.faults.append(RowFault(number, "", "is not a JSON object.", remedy, unit))

    def add(self, number: int, row: Mapping[str, object], unit: str = "line") -> None:
        """Add the request of a row, or report its faults.

        Args:
            number: its position, counted from 1.
            unit: what the number counts.
        """
        self._check_names(row, number, unit)
        cells = {name: cell for name, cell in row.items() if name in COLUMNS}
        values, problems = check_fields(cells, self._defaults, _REQUIRED)
        if not problems:
            request = request_from_checked(values)
            first = self._first_rows.setdefault(request.identity, number)
            if first == number:
                self._requests.append(request)
            else:
                problems = {"": Problem(f"repeats {unit} {first}.", "Remove one of the two.")}
        self.faults += [_fault(number, *one, unit) for one in problems.items()]

    def _check_names(self, names: Iterable[str], number: int, unit: str = "line") -> None:
        """Report unknown columns, or remember them as ignored."""
        for name in names:
            if name in COLUMNS:
                continue
            fault = _fault(number, name, unknown_column(name), unit)
            if not self._skip_invalid:
                self.faults.append(fault)
            elif name.strip().lower() in COLUMNS:  # such as "Region"
                raise _UnreadableError(fault)  # ignoring it would change what is exported
            else:
                self._ignored_columns[escaped(name)] = None


def _lines(text: TextIO, first: str, line: int) -> Iterator[str]:
    while first:
        if len(first) > MAX_LINE:
            reason = f"the line is longer than {MAX_LINE} characters."
            raise _unreadable(line, reason, "Check that this file is a manifest.")
        yield first
        line, first = line + 1, text.readline(MAX_LINE + 1)


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
    """Parse a JSON text; ``line`` is the number of its first line."""
    if fault := _not_text(line, text):
        raise _UnreadableError(fault)
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


def _not_text(line: int, text: str) -> RowFault | None:
    """Return a fault if the text contains NUL characters or invalid UTF-8."""
    found = _NOT_TEXT.search(text)
    if found is None:
        return None
    line += text.count("\n", 0, found.start())
    if found[0] == "\0":
        reason = (
            "contains NUL characters: it may be a binary file, or UTF-16 without a byte order mark."
        )
        return RowFault(line, "", reason, "Save the manifest as plain UTF-8 text.")
    return RowFault(line, "", "is not valid UTF-8.", "Save the manifest as UTF-8.")


def _fault(number: int, column: str, problem: Problem, unit: str = "line") -> RowFault:
    """Return a problem as the fault of a row; the column's name may be any text."""
    return RowFault(number, escaped(column), problem.reason, problem.remedy, unit)


def _unreadable(line: int, reason: str, remedy: str, column: str = "") -> _UnreadableError:
    return _UnreadableError(_fault(line, column, Problem(reason, remedy)))
