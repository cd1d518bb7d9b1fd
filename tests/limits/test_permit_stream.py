"""The arithmetic of a permit stream: spacing, slow-down and recovery."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from orchestrator.limits.rate_limiter import HORIZON, PermitStream
from tests.job_factory import NOON

RATE = 20.0
SECOND = timedelta(seconds=1)


def taken_permits(stream: PermitStream, rate: float, *, seconds: float) -> list[datetime]:
    """Return the permits of a caller that asks for one whenever the next is near."""
    now, taken = NOON, list[datetime]()
    while now < NOON + timedelta(seconds=seconds):
        for permit in stream.permits(rate, now, 1):
            taken.append(permit)
            stream = replace(stream, next_at=permit + stream.interval(rate, now))
        now = max(now + SECOND / 1000, stream.next_at - HORIZON / 2)
    return taken


def busiest_second(times: list[datetime]) -> int:
    return max(sum(1 for time in times if start <= time < start + SECOND) for start in times)


@pytest.mark.parametrize("rate", [0.1, 0.4, 1.0, 5.0, RATE, 100.0])
def test_the_rate_is_used_and_never_exceeded(rate: float) -> None:
    """No period of one second exceeds the rate, and nearly all permits are used."""
    taken = taken_permits(PermitStream(NOON), rate, seconds=max(20.0, 20 / rate))
    assert busiest_second(taken) <= max(1, rate)
    assert (len(taken) - 1) / (taken[-1] - taken[0]).total_seconds() >= 0.975 * rate


def test_an_idle_stream_saves_no_permits() -> None:
    """After any pause the first permit is now, and the next one an interval later."""
    first, second, third, *_ = PermitStream(NOON - timedelta(hours=1)).permits(RATE, NOON, 9)
    assert first == NOON
    assert second - first == third - second == PermitStream(NOON).interval(RATE, NOON)


def test_a_slightly_late_claim_still_gets_its_permit() -> None:
    """Otherwise each delay of some milliseconds would lower the rate."""
    late = timedelta(milliseconds=60)
    assert PermitStream(NOON).permits(RATE, NOON + late, 1) == [NOON]


def test_no_permit_is_given_beyond_the_horizon() -> None:
    """A claimed job does not wait for longer than that."""
    taken = PermitStream(NOON).permits(RATE, NOON, 100)
    assert taken[-1] <= NOON + HORIZON
    assert PermitStream(NOON + 2 * HORIZON).permits(RATE, NOON, 100) == []


def test_a_permit_far_in_the_future_is_ignored() -> None:
    """The clock was set back: the stream goes on at once."""
    assert PermitStream(NOON + timedelta(hours=1)).permits(RATE, NOON, 1) == [NOON]


def test_without_a_limit_every_permit_is_now() -> None:
    """A rate of 0 is no limit."""
    assert PermitStream(NOON).permits(0, NOON, 50) == 50 * [NOON]


def test_one_refusal_costs_little() -> None:
    """One refusal costs 3 % of the rate, which is regained within seconds.

    A single refusal may be chance.
    """
    slowed = PermitStream(NOON).slowed(RATE, NOON)
    assert slowed.allowed(RATE, NOON) == pytest.approx(0.97 * RATE)
    assert slowed.allowed(RATE, NOON + 7 * SECOND) == RATE


def test_each_refusal_cuts_the_pace_again() -> None:
    """Each refusal cuts the pace by a further 3 %.

    Many refusals mean that other programs use the account.
    """
    stream = PermitStream(NOON)
    for _ in range(10):
        stream = stream.slowed(RATE, NOON)
    assert stream.allowed(RATE, NOON) == pytest.approx(0.97**10 * RATE)


def test_the_pace_recovers_gradually() -> None:
    """A stream that was cut to half regains 5 % of the allowed rate in ten seconds."""
    half = PermitStream(NOON, pace=10.0, slowed_at=NOON)
    assert half.allowed(RATE, NOON + 10 * SECOND) == pytest.approx(11.0)
    assert half.allowed(RATE, NOON + 101 * SECOND) == RATE


def test_a_stream_never_stops() -> None:
    """However often it is refused, a request is sent every few seconds."""
    stream, now = PermitStream(NOON), NOON
    for _ in range(50):
        stream, now = stream.slowed(RATE, now), now + SECOND
    assert (stream.allowed(RATE, now) or 0.0) >= 0.5


@pytest.mark.parametrize(("rate", "least"), [(0, 0.5), (RATE, 0.5), (0.1, 0.1)])
def test_a_burst_of_refusals_does_not_stop_a_stream(rate: float, least: float) -> None:
    """Refusals of all requests in flight do not slow a stream below its minimum rate.

    The pace has no time to recover between them.
    """
    stream = PermitStream(NOON)
    for _ in range(512):
        stream = stream.slowed(rate, NOON)
    assert stream.allowed(rate, NOON) == pytest.approx(least)


def test_a_stream_without_a_limit_is_slowed_down_too() -> None:
    """A stream without a limit is slowed down from the documented rate.

    Once that rate has recovered, the stream has no limit again.
    """
    slowed = PermitStream(NOON).slowed(0, NOON)
    assert slowed.allowed(0, NOON) == pytest.approx(19.4)
    assert slowed.allowed(0, NOON + 10 * SECOND) is None


def test_a_slow_down_in_the_future_is_ignored() -> None:
    """The clock was set back: the stream does not stay slow until it has caught up."""
    ahead = PermitStream(NOON, pace=2.0, slowed_at=NOON + timedelta(hours=1))
    assert ahead.allowed(RATE, NOON) == RATE
    assert ahead.slowed(RATE, NOON).allowed(RATE, NOON) == pytest.approx(0.97 * RATE)
