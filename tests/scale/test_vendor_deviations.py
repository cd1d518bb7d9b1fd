"""200 exports of ten minutes by a vendor that differs from its documents, with lost answers."""

from pathlib import Path

import pytest

from tests.end_to_end.test_vendor_deviations import (
    DEVIATIONS,
    Workload,
    check_no_export_is_doubled,
)

pytestmark = pytest.mark.scale

WORKLOAD = Workload(count=200, lost=10, seconds=600.0, resend_after=120.0)


@pytest.mark.parametrize("name", DEVIATIONS)
def test_vendor_deviation_with_lost_answers(name: str, tmp_path: Path) -> None:
    """Of 5 % lost answers none becomes a second export."""
    print(check_no_export_is_doubled(name, WORKLOAD, tmp_path))  # noqa: T201 - a figure
