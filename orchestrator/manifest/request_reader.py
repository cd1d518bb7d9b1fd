"""Read requests from a manifest or from flags, or report all faults together.

`DecodedText` finds the encoding, and the first line determines the format: CSV, JSON or a list of
ids. CSV, lists and JSON Lines are read line by line, other JSON as a whole. A row that cannot be
parsed is a fault like any other; if the rows after it cannot be trusted either, the manifest is
refused.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO, TextIO

from orchestrator.errors import ManifestError, RowFault, UsageError
from orchestrator.manifest.column_rules import (
    IMAGE_ID,
    check,
    column_named,
    half_width,
    is_blank,
    is_nearly_a_column,
    trimmed,
    unknown_column,
)
from orchestrator.manifest.export_request import (
    DEFAULTS,
    ExportRequest,
    check_fields,
    request_from_checked,
)
from orchestrator.manifest.file_format import (
    DELIMITERS,
    check_tccli,
    delimiter_in,
    find_delimiter,
    has_several_lists,
    is_list_of_ids,
    not_a_header,
    words_of_list,
)
from orchestrator.manifest.image_lists import ImageLists, is_row
from orchestrator.manifest.json_values import RepeatedKey, json_value_or_none, json_values
from orchestrator.manifest.problems import (
    Problem,
    UnreadableError,
    escaped,
    row_fault,
    unreadable,
)
from orchestrator.manifest.text_decoding import DecodedText, check_encoding

MAX_LINE = 2**20
"""Maximum characters of a line, so that a disk image given by mistake does not fill the memory."""

MAX_DOCUMENT = 64 * 2**20
"""Maximum characters of JSON that is read as a whole: anything but JSON Lines."""

_BLANK = f" \r\n{DELIMITERS}"
"""What a line may consist of and yet be empty: spreadsheets separate empty cells too."""

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
        invalid: number of rows that were left out.
        ignored_columns: names of unknown columns, as they are written.
        notes: what else a person should know.
    """

    requests: tuple[ExportRequest, ...]
    faults: tuple[RowFault, ...] = ()
    invalid: int = 0
    ignored_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_manifest(
    stream: BinaryIO,
    source: str,
    flags: Flags,
    *,
    skip_invalid: bool = False,
    encoding: str | None = None,
) -> Manifest:
    """Read CSV, JSON or a list of image ids.

    Args:
        stream: read to its end, unless the manifest is refused before; left open.
        source: the manifest's name in messages.
        flags: for what a row leaves out.
        skip_invalid: leave out invalid rows and unknown columns instead of refusing the manifest.
        encoding: of a manifest without a byte order mark; UTF-8 by default.

    Raises:
        ManifestError: a row is invalid, and may not be skipped; or no row is valid; or the
            manifest as a whole cannot be used, as without a header.
        UsageError: a flag's value or the encoding cannot be used.
    """
    reader = _Reader(_check_flags(flags), skip_invalid=skip_invalid)
    try:
        reader.read(DecodedText(stream, encoding))
    except UnreadableError as error:
        faults = (*reader.faults, *error.faults)
        raise ManifestError(source, faults, in_rows=False, invalid=reader.invalid) from None
    except UnicodeError:  # UTF-16 and UTF-32 without a byte order mark, if --encoding names them
        name = check_encoding(encoding or "utf-16")
        remedy = f"Name the order of its bytes: --encoding {name}-le or {name}-be."
        fault = RowFault(1, "", f"is not valid {name}.", remedy)
        raise ManifestError(source, (fault,), in_rows=False) from None
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


@dataclass(frozen=True, slots=True)
class _Header:
    """The columns of a CSV file.

    Args:
        columns: the known column of each cell, or None.
        unnamed: positions of the cells without a name.
    """

    columns: Sequence[str | None]
    unnamed: Sequence[int]


class _Reader:
    """Turns the rows of one manifest into requests."""

    def __init__(self, defaults: Mapping[str, Any], *, skip_invalid: bool) -> None:
        self.faults: list[RowFault] = []
        self._defaults = defaults
        self._skip_invalid = skip_invalid
        self._requests: list[ExportRequest] = []
        self.invalid = 0  # rows
        self._first_rows: dict[tuple[object, ...], int] = {}  # by the identity of the request
        self._ignored_columns: dict[str, None] = {}  # an ordered set
        self._notes: tuple[str, ...] = ()

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
            is_skipping = self._skip_invalid
            raise ManifestError(source, faults, in_rows=not is_skipping, invalid=self.invalid)
        ignored = tuple(self._ignored_columns)
        return Manifest(requests, faults, self.invalid, ignored, self._notes)

    def read(self, text: DecodedText) -> None:
        """Read all rows of a text; collect their requests and faults.

        Raises:
            UnreadableError: the manifest is empty, or cannot be read any further.
        """
        self._text = text
        line, first = _next_line(text, 1)
        first = first.lstrip("\ufeff")  # the mark of an encoding that was named
        while first.lstrip().startswith("#"):
            line, first = _next_line(text, line + 1)
        if not first:
            raise unreadable(1, "the manifest is empty.", "Add a row for each image.")
        check_tccli(line, first)
        if first.lstrip()[0] in "[{":
            self._read_json(first, line)
            return
        if is_list_of_ids(first):
            self._read_ids(_lines(text, first, line), line)
            return
        delimiter = delimiter_in(first)
        if delimiter is not None:
            line, first = _next_line(text, line + 1)
        self._read_csv(_lines(text, first, line), line, delimiter or find_delimiter(first))

    def _read_ids(self, lines: Iterator[str], first_line: int) -> None:
        """Read a text in which each line has the id of an image, or several."""
        for number, line in enumerate(lines, first_line):
            if fault := self._text.fault(number, line):
                self._reject(fault)
                continue
            for image in words_of_list(line):
                self.add(number, {"image_ids" if ";" in image else "image_id": image})

    def _read_csv(self, lines: Iterator[str], first_line: int, delimiter: str) -> None:
        header: _Header | None = None
        # strict: otherwise an unclosed quote would turn the rest of the file into one cell
        reader = csv.reader(lines, strict=True, skipinitialspace=True, delimiter=delimiter)
        while True:
            line = first_line + reader.line_num
            try:
                cells = [cell.strip() for cell in next(reader)]
            except StopIteration:
                break
            except csv.Error as error:
                limit = csv.field_size_limit()
                remedy = f"Check that each quote is closed and no cell exceeds {limit} characters."
                reason = str(error).replace("\t", r"\t")  # it may name the delimiter
                fault = RowFault(line, "", f"is not CSV: {reason}.", remedy)
                # a fault that spans several lines may hide other rows
                if header is None or first_line + reader.line_num > line + 1:
                    raise UnreadableError(fault) from None
                self._reject(fault)
                continue
            if header is not None and any(cells):
                self._add_cells(line, header, cells)
            elif any(cells):
                header = self._read_header(line, cells, lines)
        if header is None:
            remedy = "Begin with the names of the columns, as in image_id,region,bucket."
            raise unreadable(first_line, "the header names no column.", remedy)

    def _read_header(self, line: int, cells: Sequence[str], lines: Iterator[str]) -> _Header:
        """Return the columns that a header names; report unknown ones.

        Raises:
            UnreadableError: a required column is missing, or the line is no header.
        """
        names = [trimmed(cell) for cell in cells]
        if fault := self._text.fault(line, "".join(names)):
            raise UnreadableError(fault)
        columns = [column_named(name) for name in names]
        if not any(columns) or any(map(IMAGE_ID.fullmatch, names)):
            raise not_a_header(line, names, lines)
        ((column, count),) = Counter(filter(None, columns)).most_common(1)
        if count > 1:
            name = next(name for name in names if column_named(name) == column)
            reason = "the column is listed twice in the header."
            raise unreadable(line, reason, "Remove one of the two.", name)
        unknown = [name for name, column in zip(names, columns, strict=True) if name and not column]
        self.faults += self._faults_of_names(line, unknown, "line", is_of_tool="ImageId" in names)
        given = {*columns, "image_ids" if "image_id" in columns else ""}
        _, problems = check_fields({}, self._defaults, _REQUIRED)
        missing = [(field, problem) for field, problem in problems.items() if field not in given]
        if missing:
            raise UnreadableError(*(row_fault(line, *one) for one in missing))
        return _Header(columns, [number for number, name in enumerate(names) if not name])

    def _add_cells(self, line: int, header: _Header, cells: Sequence[str]) -> None:
        if any(cells[len(header.columns) :]):
            reason = f"has {len(cells)} cells, but the header has {len(header.columns)} columns."
            self._reject(RowFault(line, "", reason, "Put cells with a delimiter into quotes."))
        elif fault := self._text.fault(line, "".join(cells)):
            self._reject(fault)
        elif any(cells[number] for number in header.unnamed if number < len(cells)):
            reason = "has a value in a column without a name."
            remedy = "Name the column in the header, or remove it."
            self._reject(RowFault(line, "", reason, remedy))
        elif has_several_lists(header.columns, cells):
            reason = "has image ids in several columns."
            remedy = 'Write those of one request in quotes, as "img-1a2b3c4d;img-5e6f7a8b".'
            self._reject(RowFault(line, "", reason, remedy))
        else:
            # spreadsheets leave out empty cells at the end of a row, or add some
            named = zip(header.columns, cells, strict=False)
            self.add(line, {column: cell for column, cell in named if column is not None})

    def _read_json(self, first: str, line: int) -> None:
        """Read JSON Lines, or whatever else begins with this line as one document."""
        text, value = self._text, json_value_or_none(first)
        if is_row(value):
            self._read_json_lines(enumerate(_lines(text, first, line), line))
            return
        next_line, second = _next_line(text, line + 1, None)
        is_cut = not first.endswith("\n")  # it is longer than a line may be
        if value is None and first.lstrip()[0] == second.lstrip()[:1] == "{" and not is_cut:
            # no pretty-printed object goes on like this: the first of JSON Lines is invalid
            others = enumerate(_lines(text, second, next_line), next_line)
            self._read_json_lines(chain([(line, first)], others))
            return
        blank_lines = "\n" * (next_line - line - 1)
        self._read_document(first + blank_lines + second + text.read(MAX_DOCUMENT), line)

    def _read_json_lines(self, lines: Iterable[tuple[int, str]]) -> None:
        lists = ImageLists()
        for number, text in lines:
            if text.isspace():
                continue
            if fault := self._text.fault(number, text):
                self._reject(fault)
                continue
            try:
                values = json_values(text, number)
                rows = [row for value in values for row in lists.rows(value, number)]
            except UnreadableError as error:  # the next line is a value of its own
                self._reject(*error.faults)
                continue
            for row, is_of_tool in rows:
                self._add_value(number, row, "line", is_of_tool=is_of_tool)
        self._notes = lists.notes

    def _read_document(self, text: str, line: int) -> None:
        """Read one JSON value, or several that follow each other."""
        if len(text) > MAX_DOCUMENT:
            reason = f"the JSON is longer than {MAX_DOCUMENT} characters."
            remedy = "Write one object on each line, without the brackets of an array."
            raise unreadable(line, reason, remedy)
        if fault := self._text.fault(line, text):
            raise UnreadableError(fault)
        lists, number = ImageLists(), 0
        for value in json_values(text, line):
            for row, is_of_tool in lists.rows(value, line):
                number += 1
                self._add_value(number, row, "object", is_of_tool=is_of_tool)
        lists.check_not_empty(line, number)
        self._notes = lists.notes

    def _add_value(
        self, number: int, value: object, unit: str, *, is_of_tool: bool = False
    ) -> None:
        match value:
            case RepeatedKey():
                problem = Problem("the key is given twice.", "Remove one of the two.")
                self._reject(row_fault(number, value.key, problem, unit))
            case dict():
                self._add_object(number, value, unit, is_of_tool=is_of_tool)
            case str():
                column = "image_ids" if ";" in half_width(value) else "image_id"
                self.add(number, {column: value}, unit)
            case list():
                remedy = 'Write one request as {"image_ids": ["img-1a2b3c4d", "img-5e6f7a8b"]}.'
                self._reject(RowFault(number, "", "is not a JSON object.", remedy, unit))
            case _:
                remedy = 'Write rows as {"image_id": "img-1a2b3c4d"}.'
                self._reject(RowFault(number, "", "is not a JSON object.", remedy, unit))

    def _add_object(
        self, number: int, row: Mapping[str, object], unit: str, *, is_of_tool: bool
    ) -> None:
        cells: dict[str, object] = {}
        unknown: list[str] = []
        problems: dict[str, Problem] = {}
        for name, cell in row.items():
            column = column_named(name)
            if name == "DryRun":  # of ExportImages
                if cell is not None and cell is not False:
                    problems[name] = Problem("a job is no dry run.", "Remove the key.")
            elif column is None:
                unknown.append(name)
            elif column in cells:
                problems[name] = Problem(f"{column} is given twice.", "Remove one of the two.")
            else:
                cells[column] = cell
        faults = self._faults_of_names(number, unknown, unit, is_of_tool=is_of_tool)
        faults += [row_fault(number, *one, unit) for one in problems.items()]
        self.add(number, cells, unit, faults)

    def add(
        self,
        number: int,
        cells: Mapping[str, object],
        unit: str = "line",
        faults: Sequence[RowFault] = (),
    ) -> None:
        """Add the request of a row, or report its faults.

        Args:
            number: its position, counted from 1.
            cells: its values by column.
            unit: what the number counts.
            faults: those of the row that are known already.
        """
        values, problems = check_fields(cells, self._defaults, _REQUIRED)
        if not problems and not faults:
            request = request_from_checked(values)
            count = len(self._first_rows)
            first = self._first_rows.setdefault(request.identity, number)
            if len(self._first_rows) > count:
                self._requests.append(request)
                return
            images = escaped(";".join(request.image_ids))
            reason = f"repeats {images} of {unit} {first}."
            remedy = "Remove one of the two; with --skip-invalid the first is taken."
            faults = [RowFault(number, "", reason, remedy, unit, repeats=first)]
        self._reject(*faults, *(row_fault(number, *one, unit) for one in problems.items()))

    def _reject(self, *faults: RowFault) -> None:
        """Report the faults of one row, which is left out."""
        self.faults += faults
        self.invalid += 1

    def _faults_of_names(
        self, number: int, names: Iterable[str], unit: str, *, is_of_tool: bool
    ) -> list[RowFault]:
        """Return the faults of unknown columns, or remember them as ignored.

        Args:
            is_of_tool: another tool has written the row: only nearly known columns are faults.
        """
        faults = []
        for name in names:
            if name in self._ignored_columns:
                continue
            if self._skip_invalid or (is_of_tool and not is_nearly_a_column(name)):
                self._ignored_columns[name] = None
            else:
                faults.append(row_fault(number, name, unknown_column(name), unit))
        return faults


def _next_line(text: TextIO, line: int, blank: str | None = _BLANK) -> tuple[int, str]:
    """Return the next line that has other characters than these, and its number.

    At the end the line is empty.
    """
    found = text.readline(MAX_LINE + 1)
    while found and not trimmed(found.strip(blank)):
        line, found = line + 1, text.readline(MAX_LINE + 1)
    return line, found


def _lines(text: TextIO, first: str, line: int) -> Iterator[str]:
    while first:
        if len(first) > MAX_LINE:
            reason = f"the line is longer than {MAX_LINE} characters."
            raise unreadable(line, reason, "Check that this file is a manifest.")
        yield first
        line, first = line + 1, text.readline(MAX_LINE + 1)
