"""Scopes that may have to be halted: there one request at a time shows whether refusals go on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import anyio
import sqlalchemy as sa

from orchestrator.limits.circuit_breaker import PROBE_SPARE
from orchestrator.limits.halted_scopes import WHOLE_ACCOUNT, columns_of_scopes
from orchestrator.model import Scope
from orchestrator.store.tables import any_current

_INTERVAL = 0.75
"""Seconds between a refusal and the next probe: several must be refused before a scope is halted,
because a part of the requests may be refused at random."""


@dataclass(slots=True)
class _Suspicion:
    """The state of one suspected scope.

    Args:
        next_probe: when the next probe is due, on the event loop's clock.
        probe: job whose request is the probe in flight.
    """

    next_probe: float
    probe: int | None = None

    @property
    def is_due(self) -> bool:
        """Whether the next job of the scope is to be sent as a probe."""
        return anyio.current_time() >= self.next_probe


class SuspectedScopes:
    """The scopes in which exports were accepted, and then refused in a way that may pass.

    A scope is suspected from the first such refusal until an export is accepted there again, or the
    scope is halted. Without this, requests would be refused at the full rate for as long as a halt
    takes.

    Args:
        request_timeout: longest time of a request in seconds.
    """

    def __init__(self, request_timeout: float) -> None:
        self._probe_timeout = request_timeout + PROBE_SPARE
        self._suspicions: dict[tuple[Scope, str], _Suspicion] = {}

    def suspect(self, scope: Scope, value: str) -> None:
        """Begin to suspect a scope, unless it is suspected already."""
        next_probe = anyio.current_time() + _INTERVAL
        self._suspicions.setdefault((scope, value), _Suspicion(next_probe))

    def remove(self, scopes: Mapping[Scope, str]) -> None:
        """Stop suspecting these scopes.

        Call this when a request in them was accepted or when they are halted.
        """
        for one in scopes.items():
            self._suspicions.pop(one, None)

    def clear(self) -> None:
        """Stop suspecting any scope."""
        self._suspicions.clear()

    @property
    def is_probe_due(self) -> bool:
        """Whether a job of a suspected scope is to be sent now."""
        return any(suspicion.is_due for suspicion in self._suspicions.values())

    def postpone_probes(self) -> None:
        """Postpone the probes that are due: no job can be sent as one now."""
        for suspicion in self._suspicions.values():
            if suspicion.is_due:
                suspicion.next_probe = anyio.current_time() + _INTERVAL

    def begin_probe(self, scopes: Mapping[Scope, str], job_id: int) -> None:
        """Delay the next probe of these scopes until this job's request has an outcome.

        The delay is at most the timeout of a probe.
        """
        for one in scopes.items():
            if (suspicion := self._suspicions.get(one)) is not None:
                suspicion.probe = job_id
                suspicion.next_probe = anyio.current_time() + self._probe_timeout

    def end_probe(self, scopes: Mapping[Scope, str], job_id: int | None) -> None:
        """Let the next probe follow if this job's request was one, whatever its outcome."""
        for one in scopes.items():
            suspicion = self._suspicions.get(one)
            if suspicion is not None and suspicion.probe == job_id:
                suspicion.probe = None
                suspicion.next_probe = anyio.current_time() + _INTERVAL

    def suspected_jobs(self) -> sa.ColumnElement[bool]:
        """Return the condition on the table of jobs for jobs in a suspected scope.

        It reflects the scopes of the time when it is executed, as does that for probes.
        """
        return self._jobs_in(lambda _suspicion: True)

    def jobs_due_as_probes(self) -> sa.ColumnElement[bool]:
        """Return the condition for jobs that may be the next probe of all their scopes."""
        are_due = self._jobs_in(lambda suspicion: suspicion.is_due)
        return are_due & ~self._jobs_in(lambda suspicion: not suspicion.is_due)

    def _jobs_in(self, is_wanted: Callable[[_Suspicion], bool]) -> sa.ColumnElement[bool]:
        """Return the condition for the jobs of some suspected scopes."""

        def concerns_account() -> bool:
            return any(self._values(scope, is_wanted) for scope in WHOLE_ACCOUNT)

        return sa.or_(
            sa.bindparam(None, callable_=concerns_account, type_=sa.Boolean),
            *(
                column.in_(any_current(partial(self._values, scope, is_wanted)))
                for scope, column in columns_of_scopes().items()
            ),
        )

    def _values(self, scope: Scope, is_wanted: Callable[[_Suspicion], bool]) -> list[str]:
        return [
            value
            for (suspected, value), suspicion in self._suspicions.items()
            if suspected is scope and is_wanted(suspicion)
        ]
