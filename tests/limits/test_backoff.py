"""Exponential back-off."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.limits.backoff import backoff

MISSES = st.integers(0, 100_000)
JITTER = st.floats(0, 1)
SECONDS = st.floats(0.001, 3600)


@given(MISSES, JITTER, SECONDS)
def test_a_wait_keeps_within_its_limits(misses: int, jitter: float, longest: float) -> None:
    """After any number of failures the wait is positive and at most the maximum."""
    wait = backoff(misses, jitter, longest=longest).total_seconds()
    assert min(1.0, longest) / 2 <= wait + 1e-6
    assert wait <= longest + 1e-6


@given(MISSES, JITTER)
def test_one_more_failure_never_shortens_the_wait(misses: int, jitter: float) -> None:
    """With the same jitter."""
    assert backoff(misses, jitter) <= backoff(misses + 1, jitter)


@given(MISSES, JITTER)
def test_jitter_spreads_the_upper_half(misses: int, jitter: float) -> None:
    """Two requests that failed together are not retried together, nor too soon."""
    assert backoff(misses, 0.0) <= backoff(misses, jitter) <= backoff(misses, 1.0)
    assert backoff(misses, 0.0) * 2 == backoff(misses, 1.0)


def test_the_wait_doubles_up_to_the_maximum() -> None:
    """One second, two, four, up to a minute."""
    waits = [backoff(misses, 1.0).total_seconds() for misses in range(8)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
