"""Collect the requests of a manifest, and the faults of the rows that are none."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ManifestError, RowFault, UsageError
from orchestrator.manifest.column_rules import check, is_blank, is_nearly_a_column, unknown_column
from orchestrator.manifest.export_request import (
    DEFAULTS,
    ExportRequest,
    check_fields,
    request_from_checked,
)
from orchestrator.manifest.problems import Problem, escaped, row_fault

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


class RequestCollector:
    """Checks the rows of one manifest, and turns them into requests.

    Args:
        flags: for what a row leaves out.
        skip_invalid: ignore unknown columns, and leave out invalid rows.

    Attributes:
        faults: those found so far.
        invalid: number of rows that were left out so far.
        notes: what else a person should know.

    Raises:
        UsageError: a flag's value cannot be used.
    """

    def __init__(self, flags: Flags, *, skip_invalid: bool) -> None:
        self.faults: list[RowFault] = []
        self.invalid = 0
        self.notes: tuple[str, ...] = ()
        self._defaults = _check_flags(flags)
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
            is_skipping = self._skip_invalid
            raise ManifestError(source, faults, in_rows=not is_skipping, invalid=self.invalid)
        ignored = tuple(self._ignored_columns)
        return Manifest(requests, faults, self.invalid, ignored, self.notes)

    def missing_columns(self, line: int, columns: Iterable[str | None]) -> list[RowFault]:
        """Return a header fault for each required field with neither column nor flag."""
        given = {"image_ids" if column == "image_id" else column for column in columns}
        _, problems = check_fields({}, self._defaults, _REQUIRED)
        return [row_fault(line, *one) for one in problems.items() if one[0] not in given]

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
        self.reject(*faults, *(row_fault(number, *one, unit) for one in problems.items()))

    def reject(self, *faults: RowFault) -> None:
        """Report the faults of one row, which is left out."""
        self.faults += faults
        self.invalid += 1

    def faults_of_names(
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


def _check_flags(flags: Flags) -> Mapping[str, Any]:
    """Check the flags; return the values for columns that a row leaves out."""
    values = {field: check(field, raw) for field, raw in flags.items() if not is_blank(raw)}
    for field, value in values.items():
        if isinstance(value, Problem):
            raise UsageError(f"--{field.replace('_', '-')}: {value.reason}", value.remedy)
    return {**DEFAULTS, **values}
