"""Scopes in which nothing is sent any more during this run, because sending cannot succeed."""

from collections.abc import Mapping
from functools import partial

import anyio
import sqlalchemy as sa

from orchestrator.cloud.error_codes import MAY_CONCERN_ONE_IMAGE
from orchestrator.model import Code, ExportOrder, Halt, Reaction, Scope, bucket_location
from orchestrator.store.tables import any_current, bucket_location_column, jobs

WHOLE_ACCOUNT = frozenset({Scope.CREDENTIAL, Scope.ACCOUNT, Scope.CLOCK})
"""Kinds of scopes whose halt blocks every request of the account."""


_SPACING = 5.0
"""Seconds between the first refusal of a scope that was accepted before, and the claim of the
request whose refusal halts it: a fault of the service may pass meanwhile."""

_SAME_JOB_SPACING = 30.0
"""The same for requests of one job, whose refusals may concern it alone."""


class HaltedScopes:
    """The halts of one run; they are not stored, so the next run tries again."""

    def __init__(self) -> None:
        self.active: list[Halt] = []
        self._first_refusals: dict[tuple[str, Scope, str, str], tuple[float, int | None]] = {}
        """By action, scope and code: time and job of the first refusal that did not halt it yet."""
        self._accepted: set[tuple[Scope, str]] = set()

    def add(self, halt: Halt) -> bool:
        """Halt a scope; return false if it is halted already."""
        if self.contains(halt):
            return False
        self.active.append(halt)
        return True

    def remove(self, halt: Halt) -> None:
        """End this halt: its cause is gone."""
        if halt in self.active:
            self.active.remove(halt)

    def contains(self, halt: Halt) -> bool:
        """Return whether the scope of this halt is halted, for this or another reason."""
        return any((held.scope, held.value) == (halt.scope, halt.value) for held in self.active)

    def record_refusal(
        self, halt: Halt, code: Code, *, action: str, job_id: int | None, asked_at: float
    ) -> bool:
        """Record a refusal that calls for a halt; return whether it halted the scope.

        A wrong clock or an expired token may have been corrected since the request was sent, and a
        refusal of what was accepted before may pass. So these halt the scope only if a request that
        was claimed after the first refusal is refused too, with none accepted in between. A denial
        may come from a policy on a single image, so another job must be denied too.

        Args:
            action: what was refused; only the same action can show that the refusal has passed.
            job_id: ``None`` if the job is not known.
            asked_at: when the request was claimed, on the event loop's clock.
        """
        is_denial = code.name in MAY_CONCERN_ONE_IMAGE
        was_accepted = self.was_accepted(halt.scope, halt.value)
        if was_accepted or is_denial or code.reaction is not Reaction.HALT:
            key, first = (action, halt.scope, halt.value, code.name), (anyio.current_time(), job_id)
            refused_at, refused_job = self._first_refusals.setdefault(key, first)
            is_same_job = job_id is not None and job_id == refused_job
            if is_same_job and is_denial:
                return False
            if was_accepted:
                refused_at += _SAME_JOB_SPACING if is_same_job else _SPACING
            if asked_at <= refused_at:
                return False
        return self.add(halt)

    def record_acceptance(self, action: str, scopes: Mapping[Scope, str]) -> None:
        """Record that a request was accepted.

        Earlier refusals of the same action in these scopes no longer count.
        """
        self._accepted.update(scopes.items())
        for key in list(self._first_refusals):
            refused_action, scope, value, _ = key
            if refused_action == action and scopes.get(scope) == value:
                del self._first_refusals[key]

    def was_accepted(self, scope: Scope, value: str) -> bool:
        """Return whether a request in this scope was accepted in this run."""
        return (scope, value) in self._accepted

    def clear(self) -> None:
        """End every halt: the next requests find out whether its cause is gone."""
        self.active.clear()
        self._first_refusals.clear()

    def blocks_endpoint(self, host: str) -> bool:
        """Return whether no request at all may be sent to this endpoint."""
        return any(
            halt.scope in WHOLE_ACCOUNT or (halt.scope is Scope.ENDPOINT and halt.value == host)
            for halt in self.active
        )

    def blocks(self, host: str, order: ExportOrder) -> bool:
        """Return whether this order must not be sent."""
        scope_values = scope_values_of(order)
        return self.blocks_endpoint(host) or any(
            scope_values.get(halt.scope) == halt.value for halt in self.active
        )

    def permitted_jobs(self) -> sa.ColumnElement[bool]:
        """Return the condition, on the table of jobs, that no halt blocks a job.

        It reflects the halts of the time when it is executed.
        """
        return sa.and_(
            *(
                column.not_in(any_current(partial(self._halted, scope)))
                for scope, column in columns_of_scopes().items()
            )
        )

    def _halted(self, scope: Scope) -> list[str]:
        return [halt.value for halt in self.active if halt.scope is scope]


def scope_values_of(order: ExportOrder) -> Mapping[Scope, str]:
    """Return the region, bucket and role of an order, as a halt names them."""
    return {
        Scope.REGION: order.region,
        Scope.BUCKET: bucket_location(order.region, order.bucket),
        Scope.ROLE: order.role_name or "",
    }


def columns_of_scopes() -> Mapping[Scope, sa.ColumnElement[str]]:
    """Return the same as expressions on the table of jobs."""
    return {
        Scope.REGION: jobs.c.region,
        Scope.BUCKET: bucket_location_column(),
        Scope.ROLE: sa.func.coalesce(jobs.c.role_name, ""),
    }


def describe_halt(halt: Halt) -> str:
    """Return a sentence about a halt: its scope, its reason, and its remedy."""
    return f"{halt_cause(halt)}. {halt.remedy}"


def halted_kind(halt: Halt) -> str:
    """Return what kind of thing a halt blocks, in the words of users."""
    return "profile" if halt.scope in WHOLE_ACCOUNT else str(halt.scope)


def halt_cause(halt: Halt) -> str:
    """Return what a halt blocks, and why."""
    kind, name, message = halted_kind(halt), halt.value or "(the default one)", halt.message
    if halt.code.startswith("Client."):  # our own code says no more than the message
        start = kind if message.startswith(name) else f"{kind} {name}:"
        return f"{start} {message.rstrip('.')}"
    return f"{kind} {name}: {halt.code}{f' ({message})' if message else ''}"
