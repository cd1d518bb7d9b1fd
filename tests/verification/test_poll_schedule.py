"""When an export is looked for: often when its end is due, seldom when it is not."""

from datetime import timedelta

from orchestrator.forecast import FinishedExport
from orchestrator.verification.poll_schedule import schedule

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def ended(*minutes: float, size_gib: int = 50) -> list[FinishedExport]:
    return [FinishedExport(one * MINUTE, size_gib) for one in minutes]


def test_the_looks_begin_a_little_before_the_shortest_time() -> None:
    """Before nearly all others had ended hardly a look is spent; one that is quicker is seen."""
    plan = schedule(ended(40, 30, 50), 50, at_capacity=True)
    assert 29 * MINUTE < plan.first < 30 * MINUTE


def test_a_smaller_image_may_end_sooner_and_a_larger_one_no_later() -> None:
    """Size scales the time down alone: much of it may be the same for all."""
    small, large = (schedule(ended(30), size, at_capacity=True).first for size in (5, 500))
    assert 10 * small == schedule(ended(30), 50, at_capacity=True).first
    assert large == schedule(ended(30), 50, at_capacity=True).first


def test_what_is_of_unknown_size_is_compared_with_its_like() -> None:
    """An example without a size says nothing of an image that has one, nor the other way round."""
    assert schedule(ended(30, size_gib=0), 50, at_capacity=True).first == timedelta()
    assert schedule(ended(30), 0, at_capacity=True).first == timedelta()


def test_those_of_the_same_size_tell_best() -> None:
    """Once one of about its size has ended, larger ones are not asked any more."""
    plan = schedule(ended(30) + ended(30, size_gib=500), 50, at_capacity=True)
    assert 29 * MINUTE < plan.first < 30 * MINUTE


def test_where_a_place_is_waited_for_an_end_is_seen_within_a_fiftieth() -> None:
    """Each look follows the last one after a fiftieth of the age, and never within 40 ms."""
    plan = schedule(ended(30), 50, at_capacity=True)
    assert plan.after(50 * MINUTE) == 51 * MINUTE
    assert plan.after(SECOND) == SECOND + timedelta(milliseconds=40)


def test_where_nobody_knows_how_long_they_take_looks_are_spared() -> None:
    """Without an example of its size a twentieth of the age lies between two looks."""
    for examples in ([], ended(30, size_gib=500)):
        assert schedule(examples, 50, at_capacity=True).after(20 * MINUTE) == 21 * MINUTE


def test_where_no_place_is_waited_for_the_store_tells_when_to_look_again() -> None:
    """Then a look costs more than it is worth: a tenth of the age lies between two."""
    plan = schedule(ended(30), 50, at_capacity=False)
    assert plan.after(50 * MINUTE) is None
    assert plan.due_again(40 * MINUTE) == 4 * MINUTE


def test_the_store_is_told_once_for_the_time_before_the_end() -> None:
    """A young export is left alone until its end is due, for five minutes at most at a time."""
    plan = schedule(ended(1), 50, at_capacity=True)
    assert plan.first < plan.due_again(timedelta()) < plan.first + SECOND
    assert schedule(ended(60), 50, at_capacity=True).due_again(SECOND) == 5 * MINUTE


def test_nobody_keeps_an_export_for_less_than_a_second_or_more_than_five_minutes() -> None:
    """The store is not written for nothing, and a process that dies leaves no long gap."""
    plan = schedule([], 50, at_capacity=True)
    assert plan.due_again(timedelta()) == SECOND
    assert plan.due_again(timedelta(hours=9)) == 5 * MINUTE


def test_an_end_that_nobody_saw_for_hours_puts_no_look_off() -> None:
    """When the objects were written tells better than when somebody looked again."""
    late = FinishedExport(timedelta(hours=8), 50, lasted=30 * MINUTE)
    assert schedule([late], 50, at_capacity=True).first < 30 * MINUTE
    ahead = FinishedExport(30 * MINUTE, 50, lasted=timedelta(hours=8))
    assert schedule([ahead], 50, at_capacity=True).first < 30 * MINUTE
