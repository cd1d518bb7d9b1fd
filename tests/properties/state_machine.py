"""A state machine over steps of processes, vendor, operators and time, in any order."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.cloud.error_codes import CODES
from orchestrator.job_states import JobState
from orchestrator.model import Outcome
from orchestrator.settings import ResendMode
from orchestrator.store import Database
from orchestrator.worker.send import outcome_of_exception
from tests.job_factory import FakeClock, make_request

from .fake_vendor import Export, FakeCosClient, FakeVendor, refuse
from .invariants import InvariantChecker
from .system_under_test import Attempt, SystemUnderTest

PROCESSES = (0, 1)

SPANS = tuple(timedelta(seconds=seconds) for seconds in (1, 46, 121, 240, 6 * 3600))
"""A moment, a lease, the resend delay, most of a signature's lifetime, an export deadline."""

INVISIBLE = tuple(timedelta(seconds=seconds) for seconds in (0, 120))
"""How long an export leaves no trace; never longer than the resend delay."""

_REFUSALS = [
    next(name for name in sorted(CODES) if (CODES[name].reaction, CODES[name].effect) == kind)
    for kind in sorted({(code.reaction, code.effect) for code in CODES.values()})
]

NOTHING_BEGAN = [
    *map(outcome_of_exception, (httpx.ReadError("reset"), httpx.ConnectError("refused"))),
    *map(refuse, _REFUSALS),
]
"""An outcome of each kind. After some of them an export can have begun, but here it has not."""

_JOBS = 3
_MINUTES = [timedelta(seconds=131)] * 12
_HOURS = [timedelta(hours=7)] * 3 + [timedelta(hours=1)] * 12
# A first trace that was found late makes a job wait for twice as long: sixty steps of six hours.
_ROUNDS = [*_MINUTES, *_HOURS, timedelta(days=60), *_MINUTES]


def sendable_attempts(machine: "ExportStateMachine") -> list[Attempt]:
    """Return the attempts that can be sent."""
    attempts = machine.system.attempts
    return [attempt for attempt in attempts if attempt.can_send and attempt.outcome is None]


def unchecked_attempts(machine: "ExportStateMachine") -> list[Attempt]:
    """Return the attempts that need a check before sending."""
    return [
        attempt for attempt in machine.system.attempts if not attempt.is_checking | attempt.can_send
    ]


def answered_attempts(machine: "ExportStateMachine") -> list[Attempt]:
    """Return the attempts with an outcome."""
    return [attempt for attempt in machine.system.attempts if attempt.outcome is not None]


def running_exports(machine: "ExportStateMachine") -> list[Export]:
    """Return the exports that have not ended."""
    return [export for export in machine.system.vendor.exports if not export.has_ended]


def tracked_jobs(machine: "ExportStateMachine") -> list[int]:
    """Return the jobs whose objects are looked up."""
    return machine.in_state(JobState.UNKNOWN, JobState.ACCEPTED)


def unknown_jobs(machine: "ExportStateMachine") -> list[int]:
    """Return the jobs that an operator can resolve."""
    return machine.in_state(JobState.UNKNOWN)


def sample_from(choices: Callable[["ExportStateMachine"], list[Any]]) -> st.SearchStrategy[Any]:
    """Draw one of the current choices."""
    return st.runner().flatmap(lambda machine: st.sampled_from(choices(machine)))


def any_exist(
    choices: Callable[["ExportStateMachine"], list[Any]],
) -> Callable[["ExportStateMachine"], bool]:
    """Return a precondition: there is at least one choice."""
    return lambda machine: bool(choices(machine))


class ExportStateMachine(RuleBasedStateMachine):
    """One history of a store, step by step.

    Args:
        open_store: opens an empty store that uses this clock.
    """

    def __init__(self, open_store: Callable[[FakeClock], Awaitable[Database]]) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._broken = False
        self.system: SystemUnderTest = self._run(self._make(open_store))
        self._invariants = InvariantChecker(self.system)

    async def _make(
        self, open_store: Callable[[FakeClock], Awaitable[Database]]
    ) -> SystemUnderTest:
        clock = FakeClock()
        vendor = FakeVendor(clock.now)
        system = SystemUnderTest(await open_store(clock), clock, vendor, FakeCosClient(vendor))
        for process in PROCESSES:
            await system.start(process)
        return system

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self._runner.run(work)
        except BaseException:
            self._broken = True
            raise

    def in_state(self, *states: JobState) -> list[int]:
        """Return the jobs that were in one of these states after the last step."""
        return [job_id for job_id, state in self._invariants.states.items() if state in states]

    @initialize(
        exact=st.sampled_from([False, False, True]),
        described=st.booleans(),
        resend=st.sampled_from([ResendMode.PROVEN, ResendMode.ALWAYS]),
    )
    def begin(self, exact: bool, described: bool, resend: ResendMode) -> None:
        """Start each history with one job."""
        self.system.settings = self.system.settings.model_copy(update={"resend": resend})
        self._run(self._enqueue(1, exact, described))

    async def _enqueue(self, number: int, exact: bool, described: bool) -> None:
        wanted = make_request(number, exact_names=exact, prefix=f"web-{number}")
        await self.system.enqueue(wanted, described=described)

    @precondition(lambda self: self.in_state(JobState.QUEUED))
    @rule(process=st.sampled_from(PROCESSES), can_send=st.booleans())
    def claim(self, process: int, can_send: bool) -> None:
        """A process claims the next job, and can check it at once."""
        self._run(self._claim(process, can_send))

    async def _claim(self, process: int, can_send: bool) -> None:
        attempt = await self.system.claim(process)
        if attempt is not None and can_send and not attempt.can_send:
            await self.system.clear(attempt)

    @precondition(any_exist(unchecked_attempts))
    @rule(attempt=sample_from(unchecked_attempts), is_paused=st.booleans())
    def clear(self, attempt: Attempt, is_paused: bool) -> None:
        """A process checks whether its attempt can be sent, and can be paused meanwhile."""
        asked = self.system.clear(attempt)
        self._run(self.system.pause_after_listing(attempt.process, asked) if is_paused else asked)

    @precondition(any_exist(sendable_attempts))
    @rule(
        attempt=sample_from(sendable_attempts),
        invisible_for=st.sampled_from(INVISIBLE),
        is_answered=st.booleans(),
        recorded=st.booleans(),
    )
    def arrive(
        self, attempt: Attempt, invisible_for: timedelta, is_answered: bool, recorded: bool
    ) -> None:
        """The vendor begins an export; its answer arrives or is lost."""
        self._run(self._arrive(attempt, invisible_for, is_answered, recorded))

    async def _arrive(
        self, attempt: Attempt, invisible_for: timedelta, is_answered: bool, recorded: bool
    ) -> None:
        self.system.arrive(attempt, invisible_for=invisible_for, answered=is_answered)
        if recorded:
            await self.system.record(attempt)

    @precondition(any_exist(sendable_attempts))
    @rule(attempt=sample_from(sendable_attempts), outcome=st.sampled_from(NOTHING_BEGAN))
    def miss(self, attempt: Attempt, outcome: Outcome) -> None:
        """The vendor refuses, or the request is lost before it arrives."""
        attempt.outcome = outcome

    @precondition(any_exist(answered_attempts))
    @rule(attempt=sample_from(answered_attempts))
    def record(self, attempt: Attempt) -> None:
        """A process records the outcome of its attempt."""
        self._run(self.system.record(attempt))

    @precondition(any_exist(tracked_jobs))
    @rule(
        job_id=sample_from(tracked_jobs),
        process=st.sampled_from(PROCESSES),
        is_paused=st.booleans(),
    )
    def look(self, job_id: int, process: int, is_paused: bool) -> None:
        """Look up the objects of a job, with or without a pause before recording them."""
        looked = self.system.look(job_id)
        self._run(self.system.pause_after_listing(process, looked) if is_paused else looked)

    @precondition(lambda self: self.system.paused)
    @rule()
    def resume(self) -> None:
        """A paused process continues."""
        self._run(self.system.resume())

    @rule(span=st.sampled_from(SPANS), at_work=st.sampled_from([True, True, False]))
    def pass_time(self, span: timedelta, at_work: bool) -> None:
        """Time passes, and a process can then do its regular work."""
        self._run(self._pass_time(span, at_work))

    async def _pass_time(self, span: timedelta, at_work: bool) -> None:
        await self.system.pass_time(span)
        if at_work:
            await self.system.recover_orphans(PROCESSES[-1])
            await self._look_at_all()

    @precondition(any_exist(running_exports))
    @rule(export=sample_from(running_exports))
    def write(self, export: Export) -> None:
        """The vendor writes one disk."""
        self.system.vendor.write(export)

    @rule(data=st.data())
    def rare_event(self, data: st.DataObject) -> None:
        """A rare event: a crash, an operator's command, a change of permissions."""
        happens = {
            "crash": True,
            "rescue": True,
            "repeat a record": self.system.recorded,
            "settle": unknown_jobs(self),
            "retry": self.in_state(JobState.FAILED, JobState.CANCELLED),
            "cancel": self.in_state(JobState.QUEUED),
            "give up": running_exports(self),
            "deny": unchecked_attempts(self) or tracked_jobs(self),
            "enqueue": len(self._invariants.states) < _JOBS,
        }
        what = data.draw(st.sampled_from([name for name, may in happens.items() if may]))
        if what == "give up":
            data.draw(st.sampled_from(running_exports(self))).given_up = True
        elif what == "deny":
            self.system.looks.denied = not self.system.looks.denied
        elif what == "enqueue":
            number = data.draw(st.sampled_from([1, 2]))
            self._run(self._enqueue(number, data.draw(st.booleans()), data.draw(st.booleans())))
        elif what == "settle":
            self._run(self.system.settle(data.draw(st.sampled_from(unknown_jobs(self)))))
        elif what == "retry":
            self._run(self.system.retry())
        elif what == "cancel":
            self._run(self.system.cancel())
        elif what == "repeat a record":
            self._run(self.system.record(self.system.recorded[-1]))
        else:
            act = self.system.crash if what == "crash" else self.system.recover_orphans
            self._run(act(data.draw(st.sampled_from(PROCESSES))))

    @invariant()
    def holds(self) -> None:
        """Check the invariants after every step."""
        try:
            self._invariants.check()
        except BaseException:
            self._broken = True
            raise

    def teardown(self) -> None:
        """Check that every job reaches a final state, or stays unknown with a reason."""
        try:
            if not self._broken:
                self._run(self._end())
        finally:
            self._invariants.close()
            self._runner.run(self._close())
            self._runner.close()

    async def _end(self) -> None:
        """Let all processes finish, and time pass, until nothing changes."""
        self.system.looks.denied = False
        while self.system.paused:
            await self.system.resume()
            self._invariants.check()
        for span in _ROUNDS:
            await self._work_off()
            self._invariants.check()
            if not self._open():
                return
            await self.system.pass_time(span)
        assert not self._open(), self._invariants.states

    def _open(self) -> list[int]:
        """Return the jobs that still have to reach a final state."""
        waiting = self.in_state(JobState.QUEUED, JobState.SENDING, JobState.ACCEPTED)
        return waiting + [
            job_id for job_id in unknown_jobs(self) if job_id not in self._invariants.undecided
        ]

    async def _work_off(self) -> None:
        """Do everything that one process and the vendor can do now."""
        await self.system.recover_orphans(0)
        await self._look_at_all()
        while await self.system.claim(0) is not None:
            pass
        for attempt in list(self.system.attempts):
            if not attempt.can_send:
                await self.system.clear(attempt)
            if attempt.can_send:
                if attempt.outcome is None:
                    self.system.arrive(attempt, invisible_for=INVISIBLE[-1], answered=True)
                await self.system.record(attempt)
        for export in running_exports(self):
            self.system.vendor.write(export)
        await self._look_at_all()

    async def _look_at_all(self) -> None:
        for job_id in self._invariants.states:
            await self.system.look(job_id)

    async def _close(self) -> None:
        for _, _, task in self.system.paused:
            task.cancel()
        for _, stack in self.system.processes.values():
            await stack.aclose()
        await self.system.database.close()
