"""How faults of a manifest are made from problems, and the error that ends the reading."""

from orchestrator.errors import RowFault
from orchestrator.manifest.column_rules import Problem, escaped


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
