"""Read the rows of JSON Lines, or of one JSON document; its faults name their line."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from orchestrator.errors import RowFault
from orchestrator.manifest.column_rules import column_named, half_width
from orchestrator.manifest.problems import Problem, UnreadableError, row_fault, unreadable
from orchestrator.manifest.request_collector import RequestCollector
from orchestrator.manifest.text_decoding import DecodedText
from orchestrator.manifest.tool_output import ImageLists, is_row

MAX_DOCUMENT = 64 * 2**20
"""Maximum characters of JSON that is read as a whole: anything but JSON Lines."""

_BLANKS = re.compile(r"[ \t\r\n\x1e]*")


class JsonReader:
    """Reads JSON from its first line on."""

    def __init__(self, text: DecodedText, collector: RequestCollector) -> None:
        self._text = text
        self._collector = collector

    def read(self, first: str, line: int) -> None:
        """Read JSON Lines, or whatever else begins with this line as one document.

        Args:
            line: the number of this line.

        Raises:
            UnreadableError: the manifest cannot be read any further.
        """
        text, value = self._text, _json_value_or_none(first)
        if is_row(value):
            self._read_json_lines(enumerate(text.lines(first, line), line))
            return
        next_line, second = text.next_line(line + 1, None)
        is_cut = not first.endswith("\n")  # it is longer than a line may be
        if value is None and first.lstrip()[0] == second.lstrip()[:1] == "{" and not is_cut:
            # no pretty-printed object goes on like this: the first of JSON Lines is invalid
            others = enumerate(text.lines(second, next_line), next_line)
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
                self._collector.reject(fault)
                continue
            try:
                values = _json_values(text, number)
                rows = [row for value in values for row in lists.rows(value, number)]
            except UnreadableError as error:  # the next line is a value of its own
                self._collector.reject(*error.faults)
                continue
            for row, is_of_tool in rows:
                self._add_value(number, row, "line", is_of_tool=is_of_tool)
        self._collector.notes = lists.notes

    def _read_document(self, text: str, line: int) -> None:
        """Read one JSON value, or several that follow each other."""
        if len(text) > MAX_DOCUMENT:
            reason = f"the JSON is longer than {MAX_DOCUMENT} characters."
            remedy = "Write one object on each line, without the brackets of an array."
            raise unreadable(line, reason, remedy)
        if fault := self._text.fault(line, text):
            raise UnreadableError(fault)
        lists, number = ImageLists(), 0
        for value in _json_values(text, line):
            for row, is_of_tool in lists.rows(value, line):
                number += 1
                self._add_value(number, row, "object", is_of_tool=is_of_tool)
        lists.check_not_empty(line, number)
        self._collector.notes = lists.notes

    def _add_value(
        self, number: int, value: object, unit: str, *, is_of_tool: bool = False
    ) -> None:
        match value:
            case _RepeatedKey():
                problem = Problem("the key is given twice.", "Remove one of the two.")
                self._collector.reject(row_fault(number, value.key, problem, unit))
            case dict():
                self._add_object(number, value, unit, is_of_tool=is_of_tool)
            case str():
                column = "image_ids" if ";" in half_width(value) else "image_id"
                self._collector.add(number, {column: value}, unit)
            case list():
                remedy = 'Write one request as {"image_ids": ["img-1a2b3c4d", "img-5e6f7a8b"]}.'
                self._collector.reject(RowFault(number, "", "is not a JSON object.", remedy, unit))
            case _:
                remedy = 'Write rows as {"image_id": "img-1a2b3c4d"}.'
                self._collector.reject(RowFault(number, "", "is not a JSON object.", remedy, unit))

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
        faults = self._collector.faults_of_names(number, unknown, unit, is_of_tool=is_of_tool)
        faults += [row_fault(number, *one, unit) for one in problems.items()]
        self._collector.add(number, cells, unit, faults)


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


def _json_values(text: str, line: int) -> Iterator[Any]:
    """Yield the JSON values that a text consists of.

    Args:
        line: number of the first line.

    Raises:
        UnreadableError: the text is not JSON from some line on.
    """
    text, end = text.rstrip(), 0
    while end < len(text):
        start = found.end() if (found := _BLANKS.match(text, end)) else end
        try:
            value, end = _DECODER.raw_decode(text, start)
        except json.JSONDecodeError as error:
            line += error.lineno - 1
            reason = f"{error.msg} (column {error.colno})"
        except RecursionError:
            reason = "it is nested too deeply"
        except ValueError:  # Python reads no integer of more than 4300 digits
            reason = "a number has too many digits"
        else:
            yield value
            continue
        remedy = "Write one object on each line, or one array, with no comma after the last."
        raise unreadable(line, f"is not JSON: {reason}.", remedy)


def _json_value_or_none(line: str) -> object:
    """Return the JSON value that a line consists of, or None."""
    try:
        return _DECODER.decode(line)
    except (ValueError, RecursionError):
        return None
