"""Words that messages of several packages share."""

import pytest

from orchestrator.wording import has_quotes, plural


@pytest.mark.parametrize(("count", "text"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs")])
def test_noun_agrees_with_its_count(count: int, text: str) -> None:
    """Only one thing is in the singular."""
    assert plural(count, "job") == text


@pytest.mark.parametrize(
    ("text", "expected"), [('"a"', True), ("''", True), ('"', False), ('"a', False), ("", False)]
)
def test_quotes_are_around_a_text_only_in_pairs(text: str, expected: bool) -> None:
    """A single quotation mark may belong to the text."""
    assert has_quotes(text) == expected
