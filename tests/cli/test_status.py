"""The line that `status` and the progress display print for a scope."""

import pytest

from orchestrator.cli.status import scope_line
from orchestrator.limits.concurrency_limit import ConcurrencyLimit
from orchestrator.reporting.status import ScopeStatus


def scope(running: int, left: float | None) -> ScopeStatus:
    limit = ConcurrencyLimit(
        "ap-tokyo",
        7,
        running,
        full_since=None,
        probe_at=None,
    )
    return ScopeStatus("default", limit, waiting=0, usual_seconds=9.0, seconds_left=left)


@pytest.mark.parametrize(
    ("known", "is_overdue"),
    [
        (scope(running=2, left=0.0), True),
        (scope(running=2, left=3.0), False),
        (scope(running=2, left=None), False),
        (scope(running=0, left=0.0), False),
    ],
)
def test_overdue_exports_are_marked(known: ScopeStatus, is_overdue: bool) -> None:
    """Exports that run longer than usual are marked as overdue, with the usual duration."""
    assert scope_line(known).endswith("overdue (usually 9 s)") == is_overdue
