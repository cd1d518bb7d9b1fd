"""200 exports of ten minutes by a vendor that differs from its documents, answers lost besides."""

from pathlib import Path

import pytest

from tests.end_to_end.test_differing_vendor import (
    WORLDS,
    Night,
    no_lost_answer_becomes_a_second_export,
)

pytestmark = pytest.mark.scale

NIGHT = Night(count=200, lost=10, seconds=600.0, resend_after=120.0)


@pytest.mark.parametrize("name", WORLDS)
def test_a_night_with_a_differing_vendor(name: str, tmp_path: Path) -> None:
    """Of 5 % lost answers none becomes a second export."""
    print(no_lost_answer_becomes_a_second_export(name, NIGHT, tmp_path))  # noqa: T201 - a figure
