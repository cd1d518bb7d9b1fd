"""Errors that are not bugs: each says what happened and what to do."""

from dataclasses import dataclass
from typing import Self

from orchestrator.wording import plural


class OrchestratorError(Exception):
    """An error that the user can fix.

    Args:
        message: what happened, naming the input.
        remedy: what to do about it.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class UsageError(OrchestratorError):
    """The caller's input cannot be used: exit code 2."""


class InvalidRequestError(UsageError, ValueError):
    """A value of an ExportRequest is not valid.

    Args:
        field: name of the field.
        reason: why its value is not valid, as a manifest reports it.
        remedy: how to fix it.
    """

    def __init__(self, field: str, reason: str, remedy: str) -> None:
        super().__init__(f"{field}: {reason}", remedy)
        self.field = field
        self.reason = reason

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str]]:
        """Return what pickle needs: ``args`` holds the message alone."""
        return type(self), (self.field, self.reason, self.remedy)


@dataclass(frozen=True, slots=True)
class RowFault:
    """One reason why a row of a manifest cannot be used.

    Args:
        number: position of the row, counted from 1.
        column: the column, or empty if the fault concerns the whole row.
        unit: what the number counts: a line of the file, an object of a JSON array, or an image
            named by a flag.
        repeats: the number of the row with the same request, if that is the fault.
    """

    number: int
    column: str
    reason: str
    remedy: str
    unit: str = "line"
    repeats: int | None = None

    def __str__(self) -> str:
        where = f"{self.unit} {self.number}" + (f", {self.column}" if self.column else "")
        return f"{where}: {self.reason} {self.remedy}".rstrip()


class ManifestError(UsageError):
    """A manifest was refused as a whole; nothing of it was enqueued.

    Args:
        source: the manifest's name.
        faults: all that were found.
        in_rows: whether ``--skip-invalid`` can leave out the rows and columns with faults.
        invalid: number of rows with faults, as far as they were read.
    """

    def __init__(
        self, source: str, faults: tuple[RowFault, ...], *, in_rows: bool = True, invalid: int = 0
    ) -> None:
        skip = (
            ", or use --skip-invalid: it enqueues the valid rows and ignores unknown columns"
            if in_rows
            else ""
        )
        super().__init__(
            f"{source}: {plural(len(faults), 'fault')}; nothing was enqueued.",
            f"Fix the manifest{skip}.",
        )
        self.source = source
        self.faults = faults
        self.invalid = invalid


class StoreError(OrchestratorError):
    """The database cannot be used in its present state."""


class NoStoreError(StoreError):
    """There are no tables at this place, and none were to be created.

    Args:
        name: of the store, as messages name it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is no store at {name} yet.",
            "Create it with `orchestrator enqueue`, or name another with --database-url.",
        )


class StoreGoneError(StoreError):
    """The database's file was removed or replaced while this process used it."""


class CredentialError(OrchestratorError):
    """There are no credentials, or they cannot be used."""


class CloudRefusal(OrchestratorError):
    """A vendor's service answered a read with an error.

    Args:
        code: the vendor's code, or ``Http<status>`` if the body contained none.
        message: the service's own message; stored as ``service_message``.
        http_status: the HTTP status of the answer; 0 if no connection can be opened until an
            operator acts.
    """

    def __init__(self, code: str, message: str, *, http_status: int) -> None:
        super().__init__(f"{code}: {message}")
        self.service_message = message
        self.code = code
        self.http_status = http_status
