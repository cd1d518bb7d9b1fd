"""Read the rows of CSV, whatever its delimiter is."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.errors import RowFault
from orchestrator.manifest.column_rules import IMAGE_ID, column_named, trimmed
from orchestrator.manifest.file_format import has_several_lists, not_a_header
from orchestrator.manifest.problems import UnreadableError, unreadable
from orchestrator.manifest.request_collector import RequestCollector
from orchestrator.manifest.text_decoding import DecodedText
from orchestrator.wording import plural


@dataclass(frozen=True, slots=True)
class _Header:
    """The columns of a CSV file.

    Args:
        columns: the known column of each cell, or None.
        unnamed: positions of the cells without a name.
    """

    columns: Sequence[str | None]
    unnamed: Sequence[int]


class CsvReader:
    """Reads CSV from the line of its header on."""

    def __init__(self, text: DecodedText, collector: RequestCollector) -> None:
        self._text = text
        self._collector = collector

    def read(self, first: str, first_line: int, delimiter: str) -> None:
        """Read all rows.

        Args:
            first: the line of the header.
            first_line: its number.

        Raises:
            UnreadableError: the manifest cannot be read any further.
        """
        header: _Header | None = None
        lines = self._text.lines(first, first_line)
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
                self._collector.reject(fault)
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
        is_of_tool = "ImageId" in names
        collector = self._collector
        collector.faults += collector.faults_of_names(line, unknown, "line", is_of_tool=is_of_tool)
        if missing := collector.missing_columns(line, columns):
            raise UnreadableError(*missing)
        return _Header(columns, [number for number, name in enumerate(names) if not name])

    def _add_cells(self, line: int, header: _Header, cells: Sequence[str]) -> None:
        if any(cells[len(header.columns) :]):
            columns = plural(len(header.columns), "column")
            reason = f"has {plural(len(cells), 'cell')}, but the header has {columns}."
            remedy = "Put cells with a delimiter into quotes."
            self._collector.reject(RowFault(line, "", reason, remedy))
        elif fault := self._text.fault(line, "".join(cells)):
            self._collector.reject(fault)
        elif any(cells[number] for number in header.unnamed if number < len(cells)):
            reason = "has a value in a column without a name."
            remedy = "Name the column in the header, or remove it."
            self._collector.reject(RowFault(line, "", reason, remedy))
        elif has_several_lists(header.columns, cells):
            reason = "has image ids in several columns."
            remedy = 'Write those of one request in quotes, as "img-1a2b3c4d;img-5e6f7a8b".'
            self._collector.reject(RowFault(line, "", reason, remedy))
        else:
            # spreadsheets leave out empty cells at the end of a row, or add some
            named = zip(header.columns, cells, strict=False)
            self._collector.add(line, {column: cell for column, cell in named if column})
