"""The arithmetic of a stream: its slots, how it slows down, and how it recovers."""

from datetime import datetime, timedelta

import pytest

from orchestrator.limits.rate_limiter import HORIZON, PermitStream
from tests.job_factory import NOON

RATE = 20.0
SECOND = timedelta(seconds=1)


def given_away(stream: PermitStream, rate: float, *, seconds: float) -> list[datetime]:
    """The slots that somebody takes who asks for one whenever the next is near."""
    now, taken = NOON, list[datetime]()
    while now < NOON + timedelta(seconds=seconds):
        for permit in stream.permits(rate, now, 1):
            taken.append(permit)
            stream = stream.without(permit, rate, now)
        now = max(now + SECOND / 1000, stream.next_at - HORIZON / 2)
    return taken


def busiest_second(times: list[datetime]) -> int:
    return max(sum(1 for time in times if start <= time < start + SECOND) for start in times)


@pytest.mark.parametrize("rate", [0.1, 0.4, 1.0, 5.0, RATE, 100.0])
def test_the_rate_is_used_and_never_overdrawn(rate: float) -> None:
    """Wherever a second begins, no more than the allowance is in it; nearly all of it is used."""
    taken = given_away(PermitStream(NOON), rate, seconds=max(20.0, 20 / rate))
    assert busiest_second(taken) <= max(1, rate)
    assert (len(taken) - 1) / (taken[-1] - taken[0]).total_seconds() >= 0.975 * rate


def test_an_idle_stream_saves_nothing_up() -> None:
    """After a pause of any length the first slot is now, and the next an interval later."""
    first, second, third = PermitStream(NOON - timedelta(hours=1)).permits(RATE, NOON, 9)
    assert first == NOON
    assert second - first == third - second == PermitStream(NOON).interval(RATE, NOON)


def test_a_claim_that_comes_a_little_late_still_has_its_slot() -> None:
    """A delay of some milliseconds is caught up, or each would be lost for good."""
    late = timedelta(milliseconds=60)
    assert PermitStream(NOON).permits(RATE, NOON + late, 1) == [NOON]


def test_slots_beyond_the_horizon_are_kept_for_later() -> None:
    """Nobody holds a job for longer than it takes to reach a slot that is near."""
    taken = PermitStream(NOON).permits(RATE, NOON, 100)
    assert taken[-1] <= NOON + HORIZON
    assert PermitStream(NOON + 2 * HORIZON).permits(RATE, NOON, 100) == []


def test_a_slot_that_is_far_ahead_was_told_by_another_clock() -> None:
    """Where the clock was put back, the stream goes on at once."""
    assert PermitStream(NOON + timedelta(hours=1)).permits(RATE, NOON, 1) == [NOON]


def test_no_limit_is_no_wait() -> None:
    """A rate of 0 gives every slot now."""
    assert PermitStream(NOON).permits(0, NOON, 50) == 50 * [NOON]


def test_one_refusal_costs_little() -> None:
    """One refusal may be chance: it costs 3 % of the pace, which is back within seconds."""
    slowed = PermitStream(NOON).slowed(RATE, NOON)
    assert slowed.allowed(RATE, NOON) == pytest.approx(0.97 * RATE)
    assert slowed.allowed(RATE, NOON + 7 * SECOND) == RATE


def test_each_refusal_cuts_the_pace_again() -> None:
    """The more requests are refused, because others use the account, the slower the stream."""
    stream = PermitStream(NOON)
    for _ in range(10):
        stream = stream.slowed(RATE, NOON)
    assert stream.allowed(RATE, NOON) == pytest.approx(0.97**10 * RATE)


def test_the_pace_recovers_gradually() -> None:
    """A stream that was cut to half gains 5 % of the allowance in ten seconds."""
    half = PermitStream(NOON, pace=10.0, slowed_at=NOON)
    assert half.allowed(RATE, NOON + 10 * SECOND) == pytest.approx(11.0)
    assert half.allowed(RATE, NOON + 101 * SECOND) == RATE


def test_it_never_stops_for_good() -> None:
    """However often it is refused, a request goes out every few seconds."""
    stream, now = PermitStream(NOON), NOON
    for _ in range(50):
        stream, now = stream.slowed(RATE, now), now + SECOND
    assert (stream.allowed(RATE, now) or 0.0) >= 0.5


def test_a_stream_without_a_limit_learns_that_there_is_one() -> None:
    """Refused, it goes on from what the vendor documents, until that has recovered."""
    slowed = PermitStream(NOON).slowed(0, NOON)
    assert slowed.allowed(0, NOON) == pytest.approx(19.4)
    assert slowed.allowed(0, NOON + 10 * SECOND) is None


def test_a_slow_down_that_another_clock_told_is_none() -> None:
    """After a clock was put back nothing stays slow until it has caught up."""
    ahead = PermitStream(NOON, pace=2.0, slowed_at=NOON + timedelta(hours=1))
    assert ahead.allowed(RATE, NOON) == RATE
    assert ahead.slowed(RATE, NOON).allowed(RATE, NOON) == pytest.approx(0.97 * RATE)
