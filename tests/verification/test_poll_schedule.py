"""When an accepted export is polled."""

from datetime import timedelta

from orchestrator.forecast import FinishedExport
from orchestrator.verification.poll_schedule import PollSchedule, schedule

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def finished(*minutes: float, size_gib: int = 50) -> list[FinishedExport]:
    return [FinishedExport(one * MINUTE, size_gib) for one in minutes]


def test_polling_begins_a_little_before_the_earliest_end() -> None:
    """There are hardly any polls before it, whether or not the scope is at capacity."""
    for at_capacity in (True, False):
        plan = schedule(finished(40, 30, 50), 50, at_capacity=at_capacity)
        assert 29 * MINUTE < plan.first < 30 * MINUTE


def test_at_capacity_an_end_is_seen_within_a_fiftieth_of_the_age() -> None:
    """Two polls are a fiftieth of the age apart, and at least 40 ms."""
    plan = schedule(finished(30), 50, at_capacity=True)
    assert plan.interval(50 * MINUTE) == MINUTE
    assert plan.interval(SECOND) == timedelta(milliseconds=40)


def test_without_an_example_of_its_size_an_export_is_polled_less_often() -> None:
    """Two polls are a twentieth of the age apart."""
    for examples in ([], finished(30, size_gib=500)):
        assert schedule(examples, 50, at_capacity=True).interval(20 * MINUTE) == MINUTE


def test_below_capacity_an_export_is_polled_every_tenth_of_its_age() -> None:
    """A poll costs more there than it is worth."""
    plan = schedule(finished(30), 50, at_capacity=False)
    assert plan.interval(40 * MINUTE) == 4 * MINUTE
    assert plan.interval(SECOND) == SECOND


def test_a_young_export_is_reserved_until_its_first_poll() -> None:
    """The store is not written again before it, except every five minutes."""
    plan = schedule(finished(1), 50, at_capacity=True)
    assert plan.reservation(timedelta()) == plan.first
    assert schedule(finished(60), 50, at_capacity=True).reservation(SECOND) == 5 * MINUTE


def test_a_reservation_lasts_between_a_second_and_five_minutes() -> None:
    """Shorter ones would write the store too often; a process that dies leaves no long gap."""
    plan = schedule([], 50, at_capacity=True)
    assert plan.reservation(timedelta()) == SECOND
    assert plan.reservation(timedelta(hours=9)) == 5 * MINUTE


def test_a_fixed_interval_is_kept() -> None:
    """A user may want fewer polls than one in five minutes."""
    for seconds in (0.2, 900):
        interval = timedelta(seconds=seconds)
        plan = PollSchedule(share=0.0, shortest=interval)
        assert plan.interval(timedelta(hours=9)) == interval
        assert plan.reservation(timedelta(hours=9)) == max(interval, SECOND)
