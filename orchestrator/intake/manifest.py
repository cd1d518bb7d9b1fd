"""What a user wants exported, as a file or as flags, becomes requests; or every fault is named."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from orchestrator.errors import ManifestError, RowFault, UsageError
from orchestrator.intake.fields import RULES, Problem, checked, domain, escaped, unknown_column
from orchestrator.intake.rows import Header, Row, UnreadableError, fault_at, read_rows
from orchestrator.model import ExportRequest

_IMAGE_COLUMNS = ("image_id", "image_ids")
_REQUIRED = ("region", "bucket")

_Values = Mapping[str, Any]
"""Fields of a request by their names."""


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
    for column in _REQUIRED:
        if not template[column]:
            raise UsageError(f"No {column} is named.", f"Give it with --{column}.")
    intake = _Intake(template, skip_invalid=skip_invalid)
    for position, image_id in enumerate(image_ids, 1):
        intake.add(Row(position, {"image_id": image_id}))
    return intake.result("--image")


def _template(defaults: Defaults) -> _Values:
    """What a row with nothing but an image would ask for; what is missing is empty."""
    values: dict[str, Any] = {"region": "", "bucket": "", "exact_names": defaults.exact_names}
    for column in RULES:
        raw = getattr(defaults, column, None)  # images are never filled in
        value = None if _left_out(raw) else checked(column, raw)
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
        self._missing: frozenset[str] = frozenset()

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
        self._note_unknown(header.line, header.columns)
        missing = [
            column
            for column in _REQUIRED
            if column not in header.columns and not self._template[column]
        ]
        if not set(_IMAGE_COLUMNS) & set(header.columns):
            missing.insert(0, "image_id")
        if not missing:
            return
        *others, last = [fault_at(header.line, name, _missing(name)) for name in missing]
        self.faults += others
        if "image_id" in missing or self._skip_invalid:
            raise UnreadableError(last)
        self.faults.append(last)
        self._missing = frozenset(missing)

    def _take(self, row: Row) -> None:
        self._note_unknown(row.line, row.cells, row.within)
        request = _request(self._template, row, self._missing)
        place = row.line, row.within
        if isinstance(request, list):
            self.faults += request
            self._invalid += 1
        elif (first := self._seen.setdefault(_identity(request), place)) is not place:
            self.faults.append(fault_at(row.line, "", _repeats(*first), row.within))
            self._invalid += 1
        else:
            self._requests.append(request)

    def _note_unknown(self, line: int, names: Iterable[str], within: str = "") -> None:
        for name in (name for name in names if name not in RULES):
            fault = fault_at(line, name, unknown_column(name), within)
            if not self._skip_invalid:
                self.faults.append(fault)
            elif name.strip().lower() in RULES:
                raise UnreadableError(fault)  # ignoring it would change what is exported
            else:
                self._ignored[escaped(name)] = None


def _request(
    template: _Values, row: Row, missing: frozenset[str]
) -> ExportRequest | list[RowFault]:
    """The row's request, or its faults; columns that the header lacks were told once, there."""
    values: dict[str, Any] = {
        column: checked(column, raw)
        for column, raw in row.cells.items()
        if column in RULES and not _left_out(raw)
    }
    problems = {column: value for column, value in values.items() if isinstance(value, Problem)}
    for column in _REQUIRED:
        if not (column in values or template[column] or column in missing):
            problems[column] = _missing(column)
    images = [column for column in _IMAGE_COLUMNS if column in values]
    if len(images) != 1:
        problems["image_id"] = _BOTH if images else _missing("image_id")
    if not problems:
        values["image_ids"] = values.pop(images[0])
        request = ExportRequest(**{**template, **values})
        problem = None if missing else domain(request.bucket, request.region)
        if problem is None:
            return request
        problems["bucket"] = problem
    return [fault_at(row.line, column, found, row.within) for column, found in problems.items()]


def _identity(request: ExportRequest) -> tuple[object, ...]:
    """What makes two rows the same export."""
    return (
        *sorted(request.image_ids),
        *(request.region, request.bucket, request.format, request.prefix, request.only_root_disk),
    )


def _left_out(raw: object) -> bool:
    return raw is None or (isinstance(raw, str) and not raw.strip())


def _missing(column: str) -> Problem:
    if column in _IMAGE_COLUMNS:
        return Problem("no image is named.", "Name it in a column image_id.")
    return Problem(f"no {column} is named.", f"Add a column {column}, or give --{column}.")


def _repeats(line: int, within: str) -> Problem:
    place = f"line {line}, {within}" if within else f"line {line}"
    return Problem(f"repeats {place}.", "Remove one of the two.")


_BOTH = Problem("image_id and image_ids are both given.", "Use one of the two in a row.")
