"""Read a manifest, or images named by flags, as requests; or report every fault at once.

Bytes become rows (``row_parser``), and rows become requests by the rules of ``columns``.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from orchestrator.errors import ManifestError, RowFault, UsageError
from orchestrator.manifest.column_rules import (
    RULES,
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
from orchestrator.manifest.file_parser import Header, Row, UnreadableError, read_rows, row_fault

_REQUIRED = {
    "image_ids": "Put it into a column image_id.",
    "region": "Add a column region, or give --region.",
    "bucket": "Add a column bucket, or give --bucket.",
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The requests of a manifest, and what was left out of it.

    Args:
        requests: of the valid rows, in their order.
        faults: why each of the other rows was left out; a row may have several.
        invalid: number of rows that were left out.
        ignored_columns: names of unknown columns, safe to print.
    """

    requests: tuple[ExportRequest, ...]
    faults: tuple[RowFault, ...] = ()
    invalid: int = 0
    ignored_columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Defaults:
    """Values of flags, as typed: they fill in what a row leaves out."""

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
    """Read CSV, JSON Lines or a JSON array.

    Args:
        stream: read to its end and left open.
        source: the manifest's name in messages.
        defaults: for what a row leaves out.
        skip_invalid: leave out invalid rows and unknown columns instead of refusing the manifest.

    Raises:
        ManifestError: a row is invalid, and may not be skipped; or no row is valid; or the
            manifest as a whole cannot be used, as without a header.
        UsageError: a flag's value cannot be used.
    """
    reader = _Reader(_check_flags(defaults), skip_invalid=skip_invalid)
    with closing(read_rows(stream)) as rows:
        return reader.read(rows, source)


def requests_from_images(
    image_ids: Sequence[str], defaults: Defaults, *, skip_invalid: bool = False
) -> Manifest:
    """Return a request for each image named by a flag; a fault has the position of its image.

    Raises:
        ManifestError: as for a manifest.
        UsageError: another flag's value cannot be used, or is missing.
    """
    flags = _check_flags(defaults)
    for field in ("region", "bucket"):
        if field not in flags:
            raise UsageError(f"No {field} is given.", f"Give it with --{field}.")
    rows = (Row(number, {"image_id": one}, "image") for number, one in enumerate(image_ids, 1))
    return _Reader(flags, skip_invalid=skip_invalid).read(rows, "--image")


def _check_flags(flags: Defaults) -> Mapping[str, Any]:
    """Return the checked values that a row takes for what it leaves out."""
    values = dict(DEFAULTS)
    for field, raw in asdict(flags).items():
        if is_blank(raw):
            continue
        values[field] = check(field, raw)
        if isinstance(problem := values[field], Problem):
            raise UsageError(f"--{field.replace('_', '-')}: {problem.reason}", problem.remedy)
    return values


class _Reader:
    """Turns the rows of one manifest into requests."""

    def __init__(self, defaults: Mapping[str, Any], *, skip_invalid: bool) -> None:
        self._defaults = defaults
        self._skip_invalid = skip_invalid
        self._requests: list[ExportRequest] = []
        self._faults: list[RowFault] = []
        self._invalid = 0
        self._ignored_columns: dict[str, None] = {}  # an ordered set
        self._first_rows: dict[tuple[object, ...], int] = {}  # by the identity of the request

    def read(self, rows: Iterable[Header | Row | RowFault], source: str) -> Manifest:
        """Return the requests of all rows."""
        try:
            for row in rows:
                match row:
                    case Row():
                        self._add(row)
                    case Header():
                        self._check_header(row)
                    case RowFault():
                        self._reject(row)
            if not self._requests and not self._faults:
                problem = Problem("the manifest has no rows.", "Add a row for each image.")
                raise UnreadableError(row_fault(1, "", problem))
        except UnreadableError as error:
            raise ManifestError(source, (*self._faults, *error.faults), in_rows=False) from None
        faults = tuple(self._faults)
        if faults and not (self._skip_invalid and self._requests):
            raise ManifestError(source, faults, in_rows=not self._skip_invalid)
        return Manifest(tuple(self._requests), faults, self._invalid, tuple(self._ignored_columns))

    def _check_header(self, header: Header) -> None:
        """Report unknown columns, and stop if no row can have all that is required."""
        self._check_names(header.columns, header.line)
        columns = {*header.columns, "image_ids" if "image_id" in header.columns else ""}
        _, problems = check_fields({}, self._defaults, _REQUIRED)
        missing = [(field, problem) for field, problem in problems.items() if field not in columns]
        if missing:
            raise UnreadableError(*(row_fault(header.line, *one) for one in missing))

    def _add(self, row: Row) -> None:
        """Add the request of a row, or report its faults."""
        self._check_names(row.cells, row.number, row.unit)
        cells = {name: cell for name, cell in row.cells.items() if name in RULES}
        values, problems = check_fields(cells, self._defaults, _REQUIRED)
        if problems:
            self._reject(*(row_fault(row.number, *one, row.unit) for one in problems.items()))
            return
        request = request_from_checked(values)
        first = self._first_rows.setdefault(request.identity, row.number)
        if first != row.number:
            problem = Problem(f"repeats {row.unit} {first}.", "Remove one of the two.")
            self._reject(row_fault(row.number, "", problem, row.unit))
            return
        self._requests.append(request)

    def _reject(self, *faults: RowFault) -> None:
        """Report the faults of one row."""
        self._faults += faults
        self._invalid += 1

    def _check_names(self, names: Iterable[str], number: int, unit: str = "line") -> None:
        """Report unknown columns, or remember them as ignored."""
        for name in names:
            if name in RULES:
                continue
            fault = row_fault(number, name, unknown_column(name), unit)
            if not self._skip_invalid:
                self._faults.append(fault)
            elif name.strip().lower() in RULES:  # such as "Region"
                raise UnreadableError(fault)  # ignoring it would change what is exported
            else:
                self._ignored_columns[escaped(name)] = None
