"""Words that messages of several packages share."""

import pytest

from orchestrator.wording import plural


@pytest.mark.parametrize(("count", "text"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs")])
def test_noun_agrees_with_its_count(count: int, text: str) -> None:
    """Only one thing is in the singular."""
    assert plural(count, "job") == text
