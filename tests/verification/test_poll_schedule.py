"""When an accepted export is polled."""

from datetime import timedelta

from orchestrator.export_durations import FinishedExport
from orchestrator.verification.poller import PollSchedule, schedule

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def finished(*minutes: float, size_gib: int = 50) -> list[FinishedExport]:
    return [FinishedExport(one * MINUTE, size_gib) for one in minutes]


def test_at_capacity_polling_begins_a_little_before_the_earliest_end() -> None:
    """There are hardly any polls before it, and none of the ends is seen late."""
    polls = schedule(finished(40, 30, 50), 50, at_capacity=True)
    assert 29 * MINUTE < polls.first < 30 * MINUTE


def test_below_capacity_polling_begins_when_half_of_the_exports_have_ended() -> None:
    """Below capacity, the first poll comes when half of similar exports have ended.

    Most earlier polls would find nothing, and an end that is seen late costs nothing.
    """
    polls = schedule(finished(40, 30, 50), 50, at_capacity=False)
    assert 39 * MINUTE < polls.first < 40 * MINUTE
    assert schedule([], 50, at_capacity=False).first == timedelta()


def test_at_capacity_an_end_is_seen_within_a_fiftieth_of_the_age() -> None:
    """Two polls are a fiftieth of the age apart, and at least 40 ms."""
    polls = schedule(finished(30), 50, at_capacity=True)
    assert polls.interval(50 * MINUTE) == MINUTE
    assert polls.interval(SECOND) == timedelta(milliseconds=40)


def test_without_any_example_an_export_is_polled_less_often() -> None:
    """Two polls are a twentieth of the age apart."""
    assert schedule([], 50, at_capacity=True).interval(20 * MINUTE) == MINUTE


def test_below_capacity_an_export_is_polled_every_tenth_of_its_age() -> None:
    """A poll costs more there than it is worth."""
    polls = schedule(finished(30), 50, at_capacity=False)
    assert polls.interval(40 * MINUTE) == 4 * MINUTE
    assert polls.interval(SECOND) == SECOND


def test_a_young_export_is_due_again_shortly_before_its_first_poll() -> None:
    """The store is not written again before that, except every five minutes."""
    polls = schedule(finished(1), 50, at_capacity=True)
    assert not polls.is_due(timedelta())
    assert polls.first - SECOND < polls.reservation(timedelta()) < polls.first
    assert schedule(finished(60), 50, at_capacity=True).reservation(SECOND) == 5 * MINUTE


def test_a_reservation_for_polling_lasts_at_least_a_second_from_the_first_poll() -> None:
    """From its first poll, a reservation lasts at least 1 s and at most 5 min.

    A shorter one would write the store too often; a longer one would delay polls if a process dies.
    """
    polls = schedule([], 50, at_capacity=True)
    assert polls.is_due(timedelta())
    assert polls.reservation(timedelta()) == SECOND
    assert polls.reservation(timedelta(hours=9)) == 5 * MINUTE
    ahead = schedule(finished(1), 50, at_capacity=True)
    age = ahead.first - timedelta(milliseconds=400)
    assert ahead.is_due(age)
    assert ahead.reservation(age) > timedelta(milliseconds=1400)


def test_a_fixed_interval_is_kept() -> None:
    """A user may want fewer polls than one in five minutes."""
    for seconds in (0.2, 900):
        interval = timedelta(seconds=seconds)
        polls = PollSchedule(share=0.0, shortest=interval)
        assert polls.interval(timedelta(hours=9)) == interval
        assert polls.reservation(timedelta(hours=9)) == max(interval, SECOND)
