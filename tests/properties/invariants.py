"""What must hold in a store after every step, whoever took it."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from orchestrator.job_states import FINAL, TRANSITIONS, JobState
from orchestrator.model import NOT_RULED_OUT
from orchestrator.store.tables import attempts, events, jobs

from .fake_vendor import FakeVendor
from .system_under_test import SystemUnderTest


class InvariantChecker:
    """Reads a store after each step and holds it against what was there before.

    Args:
        world: whose store it is, and what really happened.
    """

    def __init__(self, world: SystemUnderTest) -> None:
        self.states: dict[int, JobState] = {}
        self.undecided: set[int] = set()
        """Unknown jobs that only an operator can settle."""
        self._tried_again: dict[int, int] = {}
        self._world = world
        self._read = 0
        # apart from the program's own way to the store, and much quicker
        driver = "sqlite" if world.database.is_sqlite else "postgresql+psycopg"
        self._engine = sa.create_engine(world.database.url.set(drivername=driver))

    def see(self) -> None:
        """Everything that must hold now."""
        world = self._world
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(jobs)).all()
            answered = connection.execute(sa.select(attempts)).all()
            fresh = sa.select(events).where(events.c.id > self._read).order_by(events.c.id)
            happened = connection.execute(fresh).all()
        self.undecided = {row.id for row in rows if row.exact_names or row.reason == NOT_RULED_OUT}
        for event in happened:
            self._follow(event)
        for row in rows:
            assert self.states[row.id] == row.state, f"job {row.id} moved without its event"
            _see_job(row, world.vendor)
        _see_tasks({row.id: row for row in rows}, answered, world, self._tried_again)

    def close(self) -> None:
        """Gives the connection back."""
        self._engine.dispose()

    def _follow(self, event: Any) -> None:
        """Each move is one of the table, and goes on where the last one ended."""
        self._read = event.id
        if event.to_state is None:
            return
        if event.kind == "retried":
            self._tried_again[event.job_id] = event.attempt or 0
        source, target = self.states.get(event.job_id), JobState(event.to_state)
        assert event.from_state == source, f"{event.kind} comes from {event.from_state}"
        assert source is None or target in TRANSITIONS[source], f"{source} to {target}"
        rescued = event.kind == "rescued"
        assert not rescued or (source, target) == (JobState.SENDING, JobState.UNKNOWN)
        self.states[event.job_id] = target


def _see_job(row: Any, vendor: FakeVendor) -> None:
    is_sent = row.state == JobState.SENDING
    assert is_sent == (row.owner is not None) == (row.expires_at is not None), row
    assert (row.finished_at is not None) == (row.state in FINAL), row
    if row.state == JobState.FAILED:
        assert row.code, row
        assert row.remedy, row
    if row.state == JobState.VERIFIED:
        exports = vendor.of(row.id)
        keys = {key for export in exports for key in export.keys}
        assert keys, f"job {row.id} is verified, and nothing was exported"
        assert keys <= {key for export in exports for key in export.written}, row


def _see_tasks(
    rows: Mapping[int, Any], answered: Any, world: SystemUnderTest, tried_again: Mapping[int, int]
) -> None:
    """No TaskId that was told is lost; a job that is tried again begins without one."""
    kept = {(row.job_id, row.number): row.task_id for row in answered}
    for flight in world.recorded:
        if flight.outcome is not None and flight.outcome.task_id is not None:
            task_id = str(flight.outcome.task_id)
            row, number = rows[flight.lease.job_id], flight.lease.attempt
            assert kept[row.id, number] == task_id, f"{flight} has lost its task"
            if row.attempt == number > tried_again.get(row.id, 0):
                assert row.task_id == task_id, f"{flight} was task {task_id}, not {row.task_id}"
