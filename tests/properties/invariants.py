"""The invariants of a store, checked after every step."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from orchestrator.job_states import FINAL, TRANSITIONS, JobState
from orchestrator.model import NOT_RULED_OUT
from orchestrator.store.tables import attempts, events, jobs

from .fake_vendor import FakeVendor
from .system_under_test import SystemUnderTest


class InvariantChecker:
    """Reads a store after each step and compares it with the step before.

    Args:
        system: the store to check, and what really happened.
    """

    def __init__(self, system: SystemUnderTest) -> None:
        self.states: dict[int, JobState] = {}
        self.undecided: set[int] = set()
        """Unknown jobs that only an operator can resolve."""
        self._verified: dict[int, bool] = {}
        """Verified jobs, and whether an answer had named their objects before."""
        self._retried_at: dict[int, int] = {}
        self._world = system
        self._read = 0
        # a connection of its own: independent of the program's, and much faster
        driver = "sqlite" if system.database.is_sqlite else "postgresql+psycopg"
        self._engine = sa.create_engine(system.database.url.set(drivername=driver))

    def check(self) -> None:
        """Check everything that must hold now."""
        system = self._world
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(jobs)).all()
            answered = connection.execute(sa.select(attempts)).all()
            fresh = sa.select(events).where(events.c.id > self._read).order_by(events.c.id)
            happened = connection.execute(fresh).all()
        self.undecided = {row.id for row in rows if row.exact_names or row.reason == NOT_RULED_OUT}
        for event in happened:
            self._follow(event)
        answered_jobs = {attempt.job_id for attempt in answered if attempt.task_id}
        for row in rows:
            assert self.states[row.id] == row.state, f"job {row.id} moved without its event"
            if row.state == JobState.VERIFIED:
                self._verified.setdefault(row.id, row.id in answered_jobs)
            _check_job(row, system.vendor, was_answered=self._verified.get(row.id, False))
        _check_tasks({row.id: row for row in rows}, answered, system, self._retried_at)

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def _follow(self, event: Any) -> None:
        """Check that a transition is permitted and starts where the last one ended."""
        self._read = event.id
        if event.to_state is None:
            return
        if event.kind == "retried":
            self._retried_at[event.job_id] = event.attempt or 0
        source, target = self.states.get(event.job_id), JobState(event.to_state)
        assert event.from_state == source, f"{event.kind} comes from {event.from_state}"
        assert source is None or target in TRANSITIONS[source], f"{source} to {target}"
        rescued = event.kind == "recovered"
        assert not rescued or (source, target) == (JobState.SENDING, JobState.UNKNOWN)
        self.states[event.job_id] = target


def _check_job(row: Any, vendor: FakeVendor, *, was_answered: bool) -> None:
    is_sent = row.state == JobState.SENDING
    assert is_sent == (row.owner is not None) == (row.expires_at is not None), row
    assert (row.finished_at is not None) == (row.state in FINAL), row
    if row.state == JobState.FAILED:
        assert row.code, row
        assert row.remedy, row
    if row.state == JobState.VERIFIED:
        own = vendor.of(row.id)
        # with exact names an object may come from another job of the same image and key
        writers = vendor.exports if row.exact_names else own
        assert writers, f"job {row.id} is verified, and nothing was exported"
        written = {key for export in writers for key in export.written}
        # Without an answer and without a description nothing tells how many disks there are.
        if not was_answered and any("may not be all" in one for one in row.warnings or ()):
            assert written, row
        else:
            assert {key for export in own for key in export.keys} <= written, row


def _check_tasks(
    rows: Mapping[int, Any], answered: Any, system: SystemUnderTest, retried_at: Mapping[int, int]
) -> None:
    """Check that no recorded TaskId is lost; a retried job begins without one."""
    task_ids = {(row.job_id, row.number): row.task_id for row in answered}
    for attempt in system.recorded:
        if attempt.outcome is not None and attempt.outcome.task_id is not None:
            task_id = str(attempt.outcome.task_id)
            row, number = rows[attempt.lease.job_id], attempt.lease.attempt
            assert task_ids[row.id, number] == task_id, f"{attempt} has lost its task"
            if row.attempt == number > retried_at.get(row.id, 0):
                assert row.task_id == task_id, f"{attempt} was task {task_id}, not {row.task_id}"
