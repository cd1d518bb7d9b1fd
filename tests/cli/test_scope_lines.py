"""How a scope is told in one line."""

import pytest

from orchestrator.cli.status import scope_line
from orchestrator.limits.concurrency_limit import ConcurrencyLimit
from orchestrator.reporting.status import ScopeStatus


def scope(running: int, left: float | None, typical_duration: float | None = 9.0) -> ScopeStatus:
    gate = ConcurrencyLimit("ap-tokyo", 7, running, full_since=None, probe_at=None)
    return ScopeStatus("default", gate, 0, typical_duration, left)


@pytest.mark.parametrize(
    ("known", "late"),
    [
        (scope(running=2, left=0.0), True),
        (scope(running=2, left=3.0), False),
        (scope(running=2, left=None), False),
        (scope(running=0, left=0.0), False),
    ],
)
def test_exports_that_take_longer_than_usual_are_told(known: ScopeStatus, late: bool) -> None:
    """Where the last ones are late the usual time stands beside them, instead of a time left."""
    assert scope_line(known).endswith("not seen to end in the usual 9 s") == late
