"""Forty hours of exports under a small concurrency limit, with a clock that is set by hand.

The claims, the recorded outcomes and the poll schedule are the real ones. The vendor is a count of
running exports, so a run takes seconds.
"""

import heapq
import random
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

from benchmarks.case import Case, Goal, Measurement
from benchmarks.ledger_figures import bound, makespan
from benchmarks.virtual import in_virtual_time, memory_folder
from orchestrator.export_durations import FinishedExport
from orchestrator.job_states import JobState
from orchestrator.model import Lease
from orchestrator.store import Database, Schema
from orchestrator.verification.poller import schedule
from tests.job_factory import (
    CAP_REACHED,
    NOON,
    FakeClock,
    claim_all,
    make_acceptance,
    make_jobs,
    make_refusal,
    make_requests,
    read_scope,
    record_outcome,
    update_job,
)

_CAP = 10
_IMAGES = 800
_MEDIAN, _SPREAD = 1800.0, 0.5
_SEEDS = range(5)

_SIZE = 50
_ROUND_TRIP = 0.2
_CLAIM_INTERVAL, _CLAIM_LIMIT = 0.1, 2
"""Two jobs at 20 requests per second are claimed in one transaction."""


@dataclass
class _Night:
    """One run.

    Args:
        events: by time in seconds: the name of what is due, and the lease that it is about.
        exports: by job, as the vendor's ledger has them.
    """

    database: Database
    clock: FakeClock
    rng: random.Random
    events: list[tuple[float, int, str, Lease | None]] = field(default_factory=list)
    order: "count[int]" = field(default_factory=count)
    now: float = 0.0
    next_claim: float = 0.0
    exports: dict[int, dict[str, Any]] = field(default_factory=dict)
    finished: list[FinishedExport] = field(default_factory=list)
    refused: int = 0

    async def run(self) -> None:
        """Export every image."""
        await make_jobs(self.database, make_requests(_IMAGES), sizes=[_SIZE] * _IMAGES)
        await self._claim()
        while self.events:
            self.now, _, name, lease = heapq.heappop(self.events)
            self.clock.moment = NOON + timedelta(seconds=self.now)
            if lease is not None:
                if name == "poll" and self._is_running(lease):
                    continue
                await (self._answer(lease) if name == "answer" else self._finish(lease))
            await self._claim()

    def _at(self, moment: float, name: str, lease: Lease | None = None) -> None:
        heapq.heappush(self.events, (moment, next(self.order), name, lease))

    async def _claim(self) -> None:
        if self.now < self.next_claim:
            return
        leases = await claim_all(self.database, limit=_CLAIM_LIMIT)
        for lease in leases:
            self._at(self.now + _ROUND_TRIP, "answer", lease)
        if leases:
            self.next_claim = self.now + _CLAIM_INTERVAL
            self._at(self.next_claim, "claim")

    async def _answer(self, lease: Lease) -> None:
        running = sum(one["ends_at"] > self.now for one in self.exports.values())
        if running < _CAP:
            duration = _MEDIAN * self.rng.lognormvariate(0, _SPREAD)
            export = {"accepted_at": self.now, "ends_at": self.now + duration}
            self.exports[lease.job_id] = export
            await record_outcome(
                self.database, lease, make_acceptance(lease.job_id), is_end_visible=True
            )
            self._poll_later(lease, timedelta())
        else:
            self.refused += 1
            await record_outcome(
                self.database, lease, make_refusal(CAP_REACHED), is_end_visible=True
            )
        probe_at = (await read_scope(self.database)).probe_at
        if probe_at is not None:
            self._at(max(self.now, (probe_at - NOON).total_seconds()), "claim")

    def _is_running(self, lease: Lease) -> bool:
        """Poll an export; if it is running, poll it later."""
        export = self.exports[lease.job_id]
        if export["ends_at"] > self.now:
            self._poll_later(lease, self._age(lease))
        return bool(export["ends_at"] > self.now)

    async def _finish(self, lease: Lease) -> None:
        export = self.exports[lease.job_id]
        written_after = timedelta(seconds=export["ends_at"] - export["accepted_at"])
        self.finished.insert(0, FinishedExport(self._age(lease), _SIZE, written_after))
        done = {"state": JobState.VERIFIED, "finished_at": self.clock.moment}
        await update_job(self.database, lease.job_id, **done)

    def _age(self, lease: Lease) -> timedelta:
        return timedelta(seconds=self.now - self.exports[lease.job_id]["accepted_at"])

    def _poll_later(self, lease: Lease, age: timedelta) -> None:
        plan = schedule(self.finished[:50], _SIZE, at_capacity=True)
        wait = plan.interval(age)
        if age < plan.first:
            wait = min(plan.first - age, plan.reservation(age))
        self._at(self.now + wait.total_seconds(), "poll", lease)


async def _night(seed: int) -> _Night:
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        clock = FakeClock()
        database = Database(f"sqlite+aiosqlite:///{folder}/exports.db", clock)
        await Schema(database).require(create=True)
        night = _Night(database, clock, random.Random(seed))
        await night.run()
        await database.close()
    return night


def _long_exports() -> Measurement:
    nights = [in_virtual_time(partial(_night, seed)) for seed in _SEEDS]
    exports = [list(night.exports.values()) for night in nights]
    return Measurement(
        {
            "makespan, of the bound": max(makespan(one) / bound(one, _CAP) for one in exports),
            "refused per image": max(night.refused for night in nights) / _IMAGES,
            "not exported": sum(_IMAGES - len(one) for one in exports),
        }
    )


CASES = (
    Case(
        "gate-long",
        f"{_IMAGES} images, cap {_CAP}, about 30 min each; the worst of {len(_SEEDS)} runs",
        _long_exports,
        (
            Goal("makespan, of the bound", 1.03),
            Goal("refused per image", 0.05),
            Goal("not exported", 0),
        ),
    ),
)
