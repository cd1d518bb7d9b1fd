"""Any order of what processes, vendor, persons and time may do, and the end of it all."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.cloud.error_codes import CODES
from orchestrator.job_states import JobState
from orchestrator.model import Outcome
from orchestrator.store import Database
from orchestrator.verification.resend_policy import ResendMode
from orchestrator.worker.send import outcome_of_exception
from tests.job_factory import FakeClock, make_request

from .fake_vendor import Export, FakeCosClient, FakeVendor, refuse
from .invariants import InvariantChecker
from .system_under_test import Attempt, SystemUnderTest

PROCESSES = (0, 1)

SPANS = tuple(timedelta(seconds=seconds) for seconds in (1, 46, 121, 240, 6 * 3600))
"""A moment, a lease, a time of grace, most of a signature's life, a deadline."""

UNSEEN = tuple(timedelta(seconds=seconds) for seconds in (0, 120))
"""How long an export leaves no trace; never longer than the time of grace."""

_REFUSALS = [
    next(name for name in sorted(CODES) if (CODES[name].reaction, CODES[name].effect) == kind)
    for kind in sorted({(code.reaction, code.effect) for code in CODES.values()})
]

NOTHING_BEGAN = [
    *map(outcome_of_exception, (httpx.ReadError("reset"), httpx.ConnectError("refused"))),
    *map(refuse, _REFUSALS),
]
"""An outcome of each kind; an export may have begun under some, but has not."""

_JOBS = 3
_ROUNDS = [timedelta(seconds=131)] * 12 + [timedelta(hours=7)] * 3 + [timedelta(hours=1)] * 12


def sendable_attempts(machine: "ExportStateMachine") -> list[Attempt]:
    """Attempts that may leave."""
    flights = machine.world.flights
    return [flight for flight in flights if flight.cleared and flight.outcome is None]


def unchecked_attempts(machine: "ExportStateMachine") -> list[Attempt]:
    """Attempts that need a look first."""
    return [flight for flight in machine.world.flights if not flight.asking | flight.cleared]


def answered_attempts(machine: "ExportStateMachine") -> list[Attempt]:
    """Attempts of which something has come."""
    return [flight for flight in machine.world.flights if flight.outcome is not None]


def running_exports(machine: "ExportStateMachine") -> list[Export]:
    """Exports that have not ended."""
    return [export for export in machine.world.vendor.exports if not export.has_ended]


def tracked_jobs(machine: "ExportStateMachine") -> list[int]:
    """Jobs that are looked for."""
    return machine.in_state(JobState.UNKNOWN, JobState.ACCEPTED)


def unknown_jobs(machine: "ExportStateMachine") -> list[int]:
    """Jobs that a person can settle."""
    return machine.in_state(JobState.UNKNOWN)


def sample_from(choices: Callable[["ExportStateMachine"], list[Any]]) -> st.SearchStrategy[Any]:
    """One of what there is at this step."""
    return st.runner().flatmap(lambda machine: st.sampled_from(choices(machine)))


def any_exist(
    choices: Callable[["ExportStateMachine"], list[Any]],
) -> Callable[["ExportStateMachine"], bool]:
    """Whether there is one at this step."""
    return lambda machine: bool(choices(machine))


class ExportStateMachine(RuleBasedStateMachine):
    """One history of a store, taken step by step.

    Args:
        open_store: gives an empty store, and tells it the time.
    """

    def __init__(self, open_store: Callable[[FakeClock], Awaitable[Database]]) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._broken = False
        self.world: SystemUnderTest = self._run(self._make(open_store))
        self._watch = InvariantChecker(self.world)

    async def _make(
        self, open_store: Callable[[FakeClock], Awaitable[Database]]
    ) -> SystemUnderTest:
        clock = FakeClock()
        vendor = FakeVendor(clock.now)
        world = SystemUnderTest(await open_store(clock), clock, vendor, FakeCosClient(vendor))
        for process in PROCESSES:
            await world.start(process)
        return world

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self._runner.run(work)
        except BaseException:
            self._broken = True
            raise

    def in_state(self, *states: JobState) -> list[int]:
        """The jobs that were in one of these states after the last step."""
        return [job_id for job_id, state in self._watch.states.items() if state in states]

    @initialize(
        exact=st.sampled_from([False, False, True]),
        described=st.booleans(),
        resend=st.sampled_from([ResendMode.PROVEN, ResendMode.ALWAYS]),
    )
    def begin(self, exact: bool, described: bool, resend: ResendMode) -> None:
        """There is always a job."""
        self.world.policy = replace(self.world.policy, resend=resend)
        self._run(self._enqueue(1, exact, described))

    async def _enqueue(self, number: int, exact: bool, described: bool) -> None:
        wanted = make_request(number, exact_names=exact, prefix=f"web-{number}")
        await self.world.enqueue(wanted, described=described)

    @precondition(lambda self: self.in_state(JobState.QUEUED))
    @rule(process=st.sampled_from(PROCESSES), cleared=st.booleans())
    def claim(self, process: int, cleared: bool) -> None:
        """A process claims the next job, if there is one that it may, and may clear it at once."""
        self._run(self._claim(process, cleared))

    async def _claim(self, process: int, cleared: bool) -> None:
        flight = await self.world.claim(process)
        if flight is not None and cleared and not flight.cleared:
            await self.world.clear(flight)

    @precondition(any_exist(unchecked_attempts))
    @rule(flight=sample_from(unchecked_attempts), sleepy=st.booleans())
    def clear(self, flight: Attempt, sleepy: bool) -> None:
        """A process asks whether its attempt may be sent, and may sleep over the answer."""
        asked = self.world.clear(flight)
        self._run(self.world.fall_asleep(flight.process, asked) if sleepy else asked)

    @precondition(any_exist(sendable_attempts))
    @rule(
        flight=sample_from(sendable_attempts),
        unseen_for=st.sampled_from(UNSEEN),
        kept=st.booleans(),
        recorded=st.booleans(),
    )
    def arrive(self, flight: Attempt, unseen_for: timedelta, kept: bool, recorded: bool) -> None:
        """The vendor begins an export; its answer reaches us or is lost."""
        self._run(self._arrive(flight, unseen_for, kept, recorded))

    async def _arrive(
        self, flight: Attempt, unseen_for: timedelta, kept: bool, recorded: bool
    ) -> None:
        self.world.arrive(flight, unseen_for=unseen_for, answered=kept)
        if recorded:
            await self.world.record(flight)

    @precondition(any_exist(sendable_attempts))
    @rule(flight=sample_from(sendable_attempts), outcome=st.sampled_from(NOTHING_BEGAN))
    def miss(self, flight: Attempt, outcome: Outcome) -> None:
        """The vendor refuses, or the request is lost on its way."""
        flight.outcome = outcome

    @precondition(any_exist(answered_attempts))
    @rule(flight=sample_from(answered_attempts))
    def record(self, flight: Attempt) -> None:
        """A process records what came of its attempt."""
        self._run(self.world.record(flight))

    @precondition(any_exist(tracked_jobs))
    @rule(
        job_id=sample_from(tracked_jobs), process=st.sampled_from(PROCESSES), sleepy=st.booleans()
    )
    def look(self, job_id: int, process: int, sleepy: bool) -> None:
        """A process looks for the objects of a job, and may sleep over what it saw."""
        looked = self.world.look(job_id)
        self._run(self.world.fall_asleep(process, looked) if sleepy else looked)

    @precondition(lambda self: self.world.asleep)
    @rule()
    def wake(self) -> None:
        """A process goes on from where it slept."""
        self._run(self.world.wake())

    @rule(span=st.sampled_from(SPANS), at_work=st.sampled_from([True, True, False]))
    def pass_time(self, span: timedelta, at_work: bool) -> None:
        """Time passes, and a process may then do what it does whenever it is awake."""
        self._run(self._pass_time(span, at_work))

    async def _pass_time(self, span: timedelta, at_work: bool) -> None:
        await self.world.pass_time(span)
        if at_work:
            await self.world.recover_orphans(PROCESSES[-1])
            await self._look_at_all()

    @precondition(any_exist(running_exports))
    @rule(export=sample_from(running_exports))
    def write(self, export: Export) -> None:
        """The vendor has written a disk."""
        self.world.vendor.write(export)

    @rule(data=st.data())
    def befall(self, data: st.DataObject) -> None:
        """What happens seldom: a crash, a person, a change of heart."""
        happens = {
            "crash": True,
            "rescue": True,
            "repeat a record": self.world.recorded,
            "settle": unknown_jobs(self),
            "retry": self.in_state(JobState.FAILED, JobState.CANCELLED),
            "cancel": self.in_state(JobState.QUEUED),
            "give up": running_exports(self),
            "deny": unchecked_attempts(self) or tracked_jobs(self),
            "enqueue": len(self._watch.states) < _JOBS,
        }
        what = data.draw(st.sampled_from([name for name, may in happens.items() if may]))
        if what == "give up":
            data.draw(st.sampled_from(running_exports(self))).given_up = True
        elif what == "deny":
            self.world.looks.denied = not self.world.looks.denied
        elif what == "enqueue":
            number = data.draw(st.sampled_from([1, 2]))
            self._run(self._enqueue(number, data.draw(st.booleans()), data.draw(st.booleans())))
        elif what == "settle":
            self._run(self.world.settle(data.draw(st.sampled_from(unknown_jobs(self)))))
        elif what == "retry":
            self._run(self.world.retry())
        elif what == "cancel":
            self._run(self.world.cancel())
        elif what == "repeat a record":
            self._run(self.world.record(self.world.recorded[-1]))
        else:
            act = self.world.crash if what == "crash" else self.world.recover_orphans
            self._run(act(data.draw(st.sampled_from(PROCESSES))))

    @invariant()
    def holds(self) -> None:
        """What must hold after every step."""
        try:
            self._watch.see()
        except BaseException:
            self._broken = True
            raise

    def teardown(self) -> None:
        """Everything comes to its end, or honestly stays unknown."""
        try:
            if not self._broken:
                self._run(self._end())
        finally:
            self._watch.close()
            self._runner.run(self._close())
            self._runner.close()

    async def _end(self) -> None:
        """Lets everybody finish, and time pass, until nothing moves."""
        self.world.looks.denied = False
        while self.world.asleep:
            await self.world.wake()
            self._watch.see()
        for span in _ROUNDS:
            await self._work_off()
            self._watch.see()
            if not self._open():
                return
            await self.world.pass_time(span)
        assert not self._open(), self._watch.states

    def _open(self) -> list[int]:
        """Jobs that have not come to an end."""
        waiting = self.in_state(JobState.QUEUED, JobState.SENDING, JobState.ACCEPTED)
        return waiting + [
            job_id for job_id in unknown_jobs(self) if job_id not in self._watch.undecided
        ]

    async def _work_off(self) -> None:
        """One process does all that can be done now, and the vendor too."""
        await self.world.recover_orphans(0)
        await self._look_at_all()
        while await self.world.claim(0) is not None:
            pass
        for flight in list(self.world.flights):
            if not flight.cleared:
                await self.world.clear(flight)
            if flight.cleared:
                if flight.outcome is None:
                    self.world.arrive(flight, unseen_for=UNSEEN[-1], answered=True)
                await self.world.record(flight)
        for export in running_exports(self):
            self.world.vendor.write(export)
        await self._look_at_all()

    async def _look_at_all(self) -> None:
        for job_id in self._watch.states:
            await self.world.look(job_id)

    async def _close(self) -> None:
        for _, _, task in self.world.asleep:
            task.cancel()
        for _, stack in self.world.processes.values():
            await stack.aclose()
        await self.world.database.close()
