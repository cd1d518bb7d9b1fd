"""Scopes that may have to be halted: there one request at a time shows whether refusals go on."""

from collections.abc import Mapping
from functools import partial

import sqlalchemy as sa

from orchestrator.limits.circuit_breaker import CircuitBreaker
from orchestrator.limits.halted_scopes import columns_of_scopes
from orchestrator.model import Scope
from orchestrator.store.tables import any_current


class SuspectedScopes:
    """The scopes in which exports were refused in a way that may pass.

    A scope is suspected from the first refusal that does not halt it until an export is accepted
    there, or the scope is halted. Without this, requests would be refused at the full rate for as
    long as a halt takes.
    """

    def __init__(self) -> None:
        self._circuits: dict[tuple[Scope, str], CircuitBreaker] = {}

    def suspect(self, scope: Scope, value: str) -> None:
        """Record a refusal in a scope; each refused probe makes the wait for the next longer."""
        self._circuits.setdefault((scope, value), CircuitBreaker()).record_failure()

    def remove(self, scopes: Mapping[Scope, str]) -> None:
        """Stop suspecting these scopes: a request in them was accepted, or they are halted."""
        for one in scopes.items():
            self._circuits.pop(one, None)

    def clear(self) -> None:
        """Stop suspecting any scope."""
        self._circuits.clear()

    @property
    def is_probe_due(self) -> bool:
        """Whether a job of a suspected scope is to be sent now."""
        return any(circuit.is_probe_due for circuit in self._circuits.values())

    def begin_probe(self, scopes: Mapping[Scope, str]) -> None:
        """Delay the next probe of these scopes until the outcome of this one is known."""
        for one in scopes.items():
            if one in self._circuits:
                self._circuits[one].admit()

    def end_probe(self, scopes: Mapping[Scope, str]) -> None:
        """Let the next probe of these scopes follow: this one has shown nothing."""
        for one in scopes.items():
            if one in self._circuits:
                self._circuits[one].release()

    def suspected_jobs(self) -> sa.ColumnElement[bool]:
        """Return the condition, on the table of jobs, that a job lies in a suspected scope.

        It reflects the scopes of the time when it is executed. A suspected account or endpoint
        concerns every job.
        """
        columns = columns_of_scopes()
        concerns_all = sa.bindparam(
            None, callable_=lambda: self._concerns_all(set(columns)), type_=sa.Boolean
        )
        return sa.or_(
            concerns_all,
            *(
                column.in_(any_current(partial(self._suspected, scope)))
                for scope, column in columns.items()
            ),
        )

    def _concerns_all(self, of_jobs: set[Scope]) -> bool:
        return any(scope not in of_jobs for scope, _ in self._circuits)

    def _suspected(self, scope: Scope) -> list[str]:
        return [value for suspected, value in self._circuits if suspected is scope]
