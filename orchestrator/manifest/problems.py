"""Problems of values, how they are worded, and how they become faults of a manifest's rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import RowFault

MAX_SHOWN = 40
"""Characters of a value that a message shows."""

_MAX_LISTED = 5
"""Names in a list of a message; an image of DescribeImages has twenty keys."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a value cannot be used, and what to do about it."""

    reason: str
    remedy: str


class UnreadableError(Exception):
    """The manifest cannot be read any further.

    Args:
        faults: why; those that were found before are kept by the reader.
    """

    def __init__(self, *faults: RowFault) -> None:
        super().__init__(*faults)
        self.faults = faults


def row_fault(number: int, column: str, problem: Problem, unit: str = "line") -> RowFault:
    """Return a problem as the fault of a row; the column's name may be any text."""
    return RowFault(number, escaped(column), problem.reason, problem.remedy, unit)


def unreadable(line: int, reason: str, remedy: str, column: str = "") -> UnreadableError:
    """Return the error for a manifest that cannot be read beyond this line."""
    return UnreadableError(row_fault(line, column, Problem(reason, remedy)))


def quoted(value: str) -> str:
    """Quote a value for one line of a terminal.

    A long value is shortened, and its length is added. Characters that do not print are escaped.
    """
    length = f" ({len(value)} characters)" if len(value) > MAX_SHOWN else ""
    return f"'{escaped(value)}'{length}"


def escaped(value: str) -> str:
    """Return the start of a text; escape control characters and invalid bytes."""
    head = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value[:MAX_SHOWN])
    return f"{head}…" if len(value) > MAX_SHOWN else head


def listed(names: Sequence[str]) -> str:
    """Return the first of several names, and how many more there are; safe to print."""
    shown = [escaped(name) for name in names[:_MAX_LISTED]]
    more = [f"… and {len(names) - _MAX_LISTED} more"] if len(names) > _MAX_LISTED else []
    return ", ".join(shown + more)
