"""Read a manifest, or images named by flags, as requests; or report every fault at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, BinaryIO

from orchestrator.errors import ManifestError, RowFault, UsageError
from orchestrator.manifest.columns import (
    IMAGE_COLUMNS,
    RULES,
    Problem,
    checked,
    escaped,
    is_blank,
    missing,
    unknown_column,
)
from orchestrator.manifest.export_request import (
    DEFAULTS,
    ExportRequest,
    check_fields,
    request_from_checked,
)
from orchestrator.manifest.row_parser import Header, Row, UnreadableError, fault_at, read_rows

_REQUIRED: Mapping[str, Problem] = {
    "region": missing("region", "Add a column region, or give --region."),
    "bucket": missing("bucket", "Add a column bucket, or give --bucket."),
    "image_id": missing("image_id", "Put it into a column image_id."),
}
_FROM_FLAGS = ("region", "bucket")
_DESTINATION = itemgetter("region", "bucket", "format", "prefix", "only_root_disk")

_Values = Mapping[str, Any]
"""Checked values of a request by field."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What could be taken, and what could not.

    Args:
        requests: the good rows, in their order.
        faults: why each of the others was left out; a row may have several.
        invalid: how many rows were left out.
        ignored_columns: names that mean nothing here, fit to be shown.
    """

    requests: tuple[ExportRequest, ...]
    faults: tuple[RowFault, ...] = ()
    invalid: int = 0
    ignored_columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Defaults:
    """What flags fill in where a row leaves it out, as typed."""

    region: str | None = None
    bucket: str | None = None
    format: str | None = None
    prefix: str | None = None
    only_root_disk: bool = False
    role_name: str | None = None
    priority: int = 0
    not_before: str | None = None
    exact_names: bool = False


def read_manifest(
    stream: BinaryIO, source: str, defaults: Defaults, *, skip_invalid: bool = False
) -> Manifest:
    """Reads CSV, JSON Lines or a JSON array, row by row.

    Args:
        stream: read to its end and left open.
        source: names the manifest in messages.
        defaults: for what a row leaves out.
        skip_invalid: leave out broken rows and unknown columns instead of refusing the manifest.

    Raises:
        ManifestError: with every fault, where there are any that may not be skipped; and always
            where the manifest as a whole is of no use, such as one without a header.
        UsageError: a flag's value cannot be used.
    """
    intake = _Intake(_template(defaults), skip_invalid=skip_invalid)
    try:
        for item in read_rows(stream):
            intake.add(item)
        intake.refuse_emptiness()
    except UnreadableError as stop:
        raise ManifestError(source, (*intake.faults, stop.fault), in_rows=False) from None
    return intake.result(source)


def requests_from_images(
    image_ids: Sequence[str], defaults: Defaults, *, skip_invalid: bool = False
) -> Manifest:
    """A request for each image named by a flag; a fault's line is the image's position.

    Raises:
        ManifestError: with every fault, where there are any that may not be skipped.
        UsageError: another flag's value cannot be used, or is missing.
    """
    template = _template(defaults)
    for column in _FROM_FLAGS:
        if not template[column]:
            raise UsageError(f"No {column} is given.", f"Give it with --{column}.")
    intake = _Intake(template, skip_invalid=skip_invalid)
    for position, image_id in enumerate(image_ids, 1):
        intake.add(Row(position, {"image_id": image_id}))
    return intake.result("--image")


def _template(defaults: Defaults) -> _Values:
    """Return the values of a row that has only an image; a missing region or bucket is empty."""
    values: dict[str, Any] = {"region": "", "bucket": "", **DEFAULTS}
    values["exact_names"] = defaults.exact_names
    for column in RULES:
        raw = getattr(defaults, column, None)  # flags never name a row's images
        value = None if is_blank(raw) else checked(column, raw)
        if isinstance(value, Problem):
            raise UsageError(f"--{column.replace('_', '-')}: {value.reason}", value.remedy)
        if value is not None:
            values[column] = value
    return values


class _Intake:
    """Takes rows one after the other and remembers what it has seen."""

    def __init__(self, template: _Values, *, skip_invalid: bool) -> None:
        self.faults: list[RowFault] = []
        self._invalid = 0
        self._template = template
        self._skip_invalid = skip_invalid
        self._requests: list[ExportRequest] = []
        self._seen: dict[tuple[object, ...], tuple[int, str]] = {}
        self._ignored: dict[str, None] = {}
        self._required = _REQUIRED

    def add(self, item: Header | Row | RowFault) -> None:
        """Takes what the manifest holds next."""
        match item:
            case Row():
                self._take(item)
            case RowFault():
                self.faults.append(item)
                self._invalid += 1
            case Header():
                self._check(item)

    def refuse_emptiness(self) -> None:
        """A manifest that holds no row at all is a mistake, most likely made further up."""
        if not self._requests and not self.faults:
            problem = Problem("the manifest has no rows.", "Add a row for each image.")
            raise UnreadableError(fault_at(1, "", problem))

    def result(self, source: str) -> Manifest:
        """What came of it all."""
        if self.faults and not self._skip_invalid:
            raise ManifestError(source, tuple(self.faults))
        faults, ignored = tuple(self.faults), tuple(self._ignored)
        return Manifest(tuple(self._requests), faults, self._invalid, ignored)

    def _check(self, header: Header) -> None:
        """Report the unknown and the missing columns of a header."""
        self._note_unknown(header.line, [name for name in header.columns if name not in RULES])
        absent = [
            column
            for column in _FROM_FLAGS
            if column not in header.columns and not self._template[column]
        ]
        if not set(IMAGE_COLUMNS) & set(header.columns):
            absent.insert(0, "image_id")
        if not absent:
            return
        *others, last = [fault_at(header.line, name, _REQUIRED[name]) for name in absent]
        self.faults += others
        if "image_id" in absent or self._skip_invalid:
            raise UnreadableError(last)
        self.faults.append(last)
        # reported here once instead of in every row; without a region no row becomes a request
        self._required = {name: _REQUIRED[name] for name in _REQUIRED if name not in absent}

    def _take(self, row: Row) -> None:
        """Add the request of a row, or report the row's faults."""
        cells = row.cells
        if unknown := [name for name in cells if name not in RULES]:
            self._note_unknown(row.line, unknown, row.within)
            cells = {name: cell for name, cell in cells.items() if name in RULES}
        values, problems = check_fields(cells, self._template, self._required)
        place = row.line, row.within
        if problems:
            self.faults += [
                fault_at(row.line, column, problem, row.within)
                for column, problem in problems.items()
            ]
            self._invalid += 1
        elif (first := self._seen.setdefault(_identity(values), place)) is not place:
            self.faults.append(fault_at(row.line, "", _repeats(*first), row.within))
            self._invalid += 1
        elif self._required is _REQUIRED:
            self._requests.append(request_from_checked(values))

    def _note_unknown(self, line: int, names: Iterable[str], within: str = "") -> None:
        """Report unknown columns, or remember them as ignored."""
        for name in names:
            fault = fault_at(line, name, unknown_column(name), within)
            if not self._skip_invalid:
                self.faults.append(fault)
            elif name.strip().lower() in RULES:
                raise UnreadableError(fault)  # ignoring it would change what is exported
            else:
                self._ignored[escaped(name)] = None


def _identity(values: _Values) -> tuple[object, ...]:
    """Return what two rows of the same export have in common."""
    return (*sorted(values["image_ids"]), *_DESTINATION(values))


def _repeats(line: int, within: str) -> Problem:
    """Return the problem of a row that repeats an earlier one."""
    place = f"line {line}, {within}" if within else f"line {line}"
    return Problem(f"repeats {place}.", "Remove one of the two.")
