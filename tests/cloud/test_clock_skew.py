"""A server's clock, learned from its Date headers."""

from datetime import timedelta

import pytest

from orchestrator.cloud.clock_skew import ServerClock, parse_http_date
from tests.cloud.scripted_server import NOON, FixedClock, http_date


@pytest.mark.parametrize("seconds", [-400, -31, 31, 400, 86400])
def test_large_difference_sets_the_clock(seconds: int) -> None:
    """A difference of more than 30 seconds is added to this machine's time."""
    clock = ServerClock(FixedClock())
    ahead = timedelta(seconds=seconds)
    clock.learn(http_date(NOON, ahead))
    assert clock.now() == NOON + ahead
    assert clock.is_known


@pytest.mark.parametrize("seconds", [-30, -1, 0, 1, 30])
def test_small_difference_does_not_set_the_clock(seconds: int) -> None:
    """A difference of up to 30 seconds may be a slow answer; the clock is then known, though."""
    clock = ServerClock(FixedClock())
    clock.learn(http_date(NOON, timedelta(seconds=seconds)))
    assert clock.now() == NOON
    assert clock.is_known


def test_offset_is_removed_when_the_clocks_agree_again() -> None:
    """Once this machine's clock has been corrected, its time is used unchanged."""
    clock = ServerClock(FixedClock())
    clock.learn(http_date(NOON, timedelta(minutes=10)))
    clock.learn(http_date(NOON))
    assert clock.now() == NOON


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
    """A missing or invalid Date header, or one of a year far off, does not change the clock."""
    clock = ServerClock(FixedClock())
    clock.learn(header)
    assert (clock.offset, clock.is_known) == (timedelta(), False)


@pytest.mark.parametrize("zone", ["GMT", "+0000", "-0000", ""])
def test_every_way_to_write_utc_is_read(zone: str) -> None:
    """A date is aware and in UTC however its zone is written."""
    assert parse_http_date(f"Sun, 01 Mar 2026 12:00:00 {zone}".strip()) == NOON
