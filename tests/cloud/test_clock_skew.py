"""A server's clock, learned from its Date headers."""

from datetime import timedelta

import pytest

from orchestrator.cloud.clock_skew import ServerClock, parse_http_date
from tests.cloud.scripted_server import NOON, FixedClock, http_date

HOST = "cvm.example"


def learned(**difference: float) -> ServerClock:
    """Return a clock that has seen one Date header.

    Args:
        **difference: the header's time minus this machine's, as arguments of `timedelta`.
    """
    clock = ServerClock(FixedClock())
    clock.learn(http_date(NOON, timedelta(**difference)), HOST)
    return clock


@pytest.mark.parametrize("seconds", [-86400, -400, -31])
def test_earlier_time_of_the_server_dates_signatures(seconds: int) -> None:
    """A Date header that is earlier than this machine's clock dates signatures."""
    clock = learned(seconds=seconds)
    assert clock.now() == NOON + timedelta(seconds=seconds)
    assert clock.is_known


@pytest.mark.parametrize("seconds", [-30, -1, 0, 1, 30])
def test_small_difference_does_not_set_the_clock(seconds: int) -> None:
    """A difference of up to 30 seconds does not change the time of signatures.

    It may come from a slow answer. The server's time counts as known.
    """
    clock = learned(seconds=seconds)
    assert clock.now() == NOON
    assert clock.is_known


@pytest.mark.parametrize("seconds", [299, 400, 86400])
def test_later_time_of_the_server_needs_a_refusal(seconds: int) -> None:
    """A later Date header dates signatures only after a refusal.

    A signature with a date that is too late would be valid for too long.
    """
    clock = learned(seconds=seconds)
    assert clock.now() == NOON
    assert clock.record_refusal(NOON)
    assert clock.now() == NOON + timedelta(seconds=seconds)
    assert not clock.is_refused


@pytest.mark.parametrize("seconds", [-290, -250, -31, 31, 250, 290])
def test_a_refusal_that_no_clock_explains_changes_nothing(seconds: int) -> None:
    """A refusal changes nothing if the clocks are too close to explain it.

    The vendor tolerates 300 seconds, so such a refusal is a temporary error.
    """
    clock = learned(seconds=seconds)
    before = clock.now()
    assert not clock.record_refusal(before)
    assert clock.now() == before == NOON + timedelta(seconds=min(seconds, 0))
    assert clock.is_refused


def test_a_slow_request_may_be_refused_between_closer_clocks() -> None:
    """A signature grows older until its request arrives."""
    clock = learned(seconds=280)
    assert clock.record_refusal(NOON - timedelta(seconds=21))
    assert clock.now() == NOON + timedelta(seconds=280)


@pytest.mark.parametrize(("before", "after"), [(320, 25), (320, 280), (3600, -20)])
def test_a_clock_that_is_set_makes_the_earlier_one_first_again(before: int, after: int) -> None:
    """What was refused of the old times says nothing about the new ones."""
    clock = learned(seconds=before)
    assert clock.record_refusal(clock.now())
    clock.learn(http_date(NOON, timedelta(seconds=after)), HOST)
    assert clock.now() == NOON


def test_a_date_that_was_refused_may_be_right_after_a_clock_was_set() -> None:
    """The earlier time dates signatures again when it comes back."""
    clock = learned(hours=-1)
    assert clock.record_refusal(clock.now())
    for hours in (0, -1):
        clock.learn(http_date(NOON, timedelta(hours=hours)), HOST)
    assert clock.now() == NOON - timedelta(hours=1)


def test_another_host_with_another_date_sets_no_clock() -> None:
    """A refused date stays refused while two hosts send different dates.

    Otherwise every second request would be refused.
    """
    clock = learned(hours=-1)
    assert clock.record_refusal(clock.now())
    for host, hours in (("other.example", 0), (HOST, -1), ("other.example", 0), (HOST, -1)):
        clock.learn(http_date(NOON, timedelta(hours=hours)), host)
        assert clock.now() == NOON


def test_this_machines_clock_is_next_after_a_wrong_date() -> None:
    """After a refusal of the Date header's time, this machine's clock is used.

    The same Date header is not believed again.
    """
    clock = learned(hours=-1)
    assert clock.record_refusal(clock.now())
    assert clock.now() == NOON
    clock.learn(http_date(NOON, timedelta(minutes=-60, seconds=9)), HOST)
    assert clock.now() == NOON


def test_refusal_of_an_older_date_changes_nothing() -> None:
    """The refusal of a signature from before the clock was set changes nothing.

    Several requests can be in flight when the clock is set.
    """
    clock = learned(hours=-1)
    assert clock.record_refusal(clock.now())
    assert clock.record_refusal(NOON - timedelta(hours=1))
    assert clock.now() == NOON
    assert not clock.is_refused


def test_no_date_is_left_when_all_are_refused() -> None:
    """After both clocks were refused, the one refused first is used again.

    The server's clock may be corrected in the meantime.
    """
    clock = learned(hours=-1)
    assert clock.record_refusal(clock.now())
    assert not clock.record_refusal(clock.now())
    assert clock.is_refused
    assert clock.now() == NOON - timedelta(hours=1)


def test_agreeing_clocks_leave_no_other_date() -> None:
    """Where both clocks show the same time, a refusal cannot be helped."""
    clock = learned(seconds=2)
    assert not clock.record_refusal(NOON)
    assert clock.is_refused
    assert clock.now() == NOON


@pytest.mark.parametrize(
    ("seconds", "difference"), [(3600, "3600 s ahead of"), (-90, "90 s behind")]
)
def test_difference_is_described_with_its_source(seconds: int, difference: str) -> None:
    """A person reads by how much, in which direction, and whose header it was."""
    said = f"the Date header of {HOST} is {difference} this machine's clock"
    assert learned(seconds=seconds).describe() == said


def test_largest_difference_of_each_host_is_kept() -> None:
    """It is what the store remembers of a host."""
    clock = learned(seconds=-90)
    for host, seconds in ((HOST, 40), (HOST, -2), ("other.example", 1)):
        clock.learn(http_date(NOON, timedelta(seconds=seconds)), host)
    seconds_by_host = {host: offset.total_seconds() for host, offset in clock.largest.items()}
    assert seconds_by_host == {HOST: -90, "other.example": 1}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "yesterday",
        "Sun, 99 Mar 2026 12:00:00 GMT",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 1900 00:00:00 GMT",
    ],
)
def test_invalid_date_is_ignored(header: str | None) -> None:
    """A missing or invalid Date header does not change the clock.

    A year that is far off is invalid.
    """
    clock = ServerClock(FixedClock())
    clock.learn(header, HOST)
    assert (clock.offset, clock.is_known, clock.largest) == (timedelta(), False, {})


@pytest.mark.parametrize("zone", ["GMT", "+0000", "-0000", ""])
def test_every_way_to_write_utc_is_read(zone: str) -> None:
    """A date is aware and in UTC however its zone is written."""
    assert parse_http_date(f"Sun, 01 Mar 2026 12:00:00 {zone}".strip()) == NOON
