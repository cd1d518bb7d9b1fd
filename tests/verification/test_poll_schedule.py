"""When an accepted export is polled."""

from datetime import timedelta

from orchestrator.forecast import FinishedExport
from orchestrator.verification.poll_schedule import NextPoll, next_poll, rare_interval

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def finished(*minutes: float, size_gib: int = 50) -> list[FinishedExport]:
    return [FinishedExport(one * MINUTE, size_gib) for one in minutes]


def test_polling_begins_a_little_before_the_earliest_end() -> None:
    """There is no poll before it, whether or not the scope is at capacity."""
    for at_capacity in (True, False):
        early = next_poll(finished(40, 30, 50), 50, 28 * MINUTE, at_capacity=at_capacity)
        assert not early.is_due
        assert 29 * MINUTE < 28 * MINUTE + early.wait < 30 * MINUTE
        assert next_poll(finished(40, 30, 50), 50, 30 * MINUTE, at_capacity=at_capacity).is_due


def test_at_capacity_an_end_is_seen_within_a_fiftieth_of_the_age() -> None:
    """Two polls are a fiftieth of the age apart, and at least 40 ms."""
    assert next_poll(finished(30), 50, 50 * MINUTE, at_capacity=True) == NextPoll(
        is_due=True, wait=MINUTE
    )
    young = next_poll(finished(SECOND / MINUTE), 50, SECOND, at_capacity=True)
    assert young == NextPoll(is_due=True, wait=timedelta(milliseconds=40))


def test_without_an_example_of_its_size_an_export_is_polled_less_often() -> None:
    """Two polls are a twentieth of the age apart, and at least 200 ms."""
    for examples in ([], finished(30, size_gib=500)):
        assert next_poll(examples, 50, 20 * MINUTE, at_capacity=True) == NextPoll(
            is_due=True, wait=MINUTE
        )
    assert next_poll([], 50, SECOND, at_capacity=True).wait == timedelta(milliseconds=200)


def test_below_capacity_an_export_is_polled_every_tenth_of_its_age() -> None:
    """A poll costs more there than it is worth."""
    assert next_poll(finished(30), 50, 40 * MINUTE, at_capacity=False) == NextPoll(
        is_due=True, wait=4 * MINUTE
    )


def test_a_job_is_due_again_after_five_minutes_at_most() -> None:
    """So a process that dies leaves no long gap."""
    for at_capacity in (True, False):
        young = next_poll(finished(60), 50, SECOND, at_capacity=at_capacity)
        assert young == NextPoll(is_due=False, wait=5 * MINUTE)
        old = next_poll([], 50, timedelta(hours=9), at_capacity=at_capacity)
        assert old == NextPoll(is_due=True, wait=5 * MINUTE)


def test_without_a_needed_slot_a_job_is_polled_every_second_at_most() -> None:
    """Shorter intervals would write the store too often."""
    assert rare_interval(timedelta()) == SECOND
