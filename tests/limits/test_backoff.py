"""The wait after the n-th refusal in a row."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.limits.backoff import backoff

MISSES = st.integers(0, 100_000)
CHANCE = st.floats(0, 1)
SECONDS = st.floats(0.001, 3600)


@given(MISSES, CHANCE, SECONDS, SECONDS)
def test_it_keeps_within_its_bounds(
    misses: int, chance: float, first: float, longest: float
) -> None:
    """However many refusals, it is longer than nothing and never longer than the longest."""
    wait = backoff(misses, chance, first=first, longest=longest).total_seconds()
    assert min(first, longest) / 2 <= wait + 1e-6
    assert wait <= longest + 1e-6


@given(MISSES, CHANCE)
def test_it_never_shrinks(misses: int, chance: float) -> None:
    """One more refusal never shortens the wait."""
    assert backoff(misses, chance) <= backoff(misses + 1, chance)


@given(MISSES, CHANCE)
def test_chance_spreads_the_upper_half(misses: int, chance: float) -> None:
    """Two who were refused together do not come back together, nor too soon."""
    assert backoff(misses, 0.0) <= backoff(misses, chance) <= backoff(misses, 1.0)
    assert backoff(misses, 0.0) * 2 == backoff(misses, 1.0)


def test_it_doubles() -> None:
    """One second, two, four, up to a minute."""
    deferrals = [backoff(misses, 1.0).total_seconds() for misses in range(8)]
    assert deferrals == [1, 2, 4, 8, 16, 32, 60, 60]
