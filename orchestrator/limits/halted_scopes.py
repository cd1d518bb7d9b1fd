"""Scopes in which nothing is sent any more during this run, because sending cannot succeed."""

from collections.abc import Mapping
from functools import partial

import anyio
import sqlalchemy as sa

from orchestrator.cloud.error_codes import MAY_CONCERN_ONE_IMAGE
from orchestrator.model import Code, ExportOrder, Halt, Reaction, Scope
from orchestrator.store.tables import any_current, jobs

WHOLE_ACCOUNT = frozenset({Scope.CREDENTIAL, Scope.ACCOUNT, Scope.CLOCK})
"""Kinds of scopes whose halt blocks every request of the account."""


class HaltedScopes:
    """The halts of one run; they are not stored, so the next run tries again."""

    def __init__(self) -> None:
        self.active: list[Halt] = []
        self._first_refusals: dict[str, tuple[float, int | None]] = {}
        """By code: time and job of the first refusal that did not halt its scope yet."""

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
        """Return whether the scope of this halt is halted, for the same or another reason."""
        return any((held.scope, held.value) == (halt.scope, halt.value) for held in self.active)

    def record_refusal(
        self, halt: Halt, code: Code, *, job_id: int | None, asked_at: float
    ) -> bool:
        """Record a refusal that calls for a halt; return whether it halted the scope.

        A wrong clock or an expired token may have been corrected since the request was sent. So
        these halt the scope only if a request that was claimed after the first refusal is refused
        too. A denial may come from a policy on a single image, so another job must be denied too.

        Args:
            asked_at: when the request was claimed, on the event loop's clock.
        """
        is_denial = code.name in MAY_CONCERN_ONE_IMAGE
        if is_denial or code.reaction is not Reaction.HALT:
            first = (anyio.current_time(), job_id)
            refused_at, refused_job = self._first_refusals.setdefault(code.name, first)
            if asked_at <= refused_at or (is_denial and refused_job == job_id):
                return False
        return self.add(halt)

    def record_acceptance(self) -> None:
        """Record an accepted request: earlier refusals no longer count."""
        self._first_refusals.clear()

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
        columns = {
            Scope.REGION: jobs.c.region,
            Scope.BUCKET: bucket_location_column(),
            Scope.ROLE: sa.func.coalesce(jobs.c.role_name, ""),
        }
        return sa.and_(
            *(
                column.not_in(any_current(partial(self._halted, scope)))
                for scope, column in columns.items()
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


def bucket_location(region: str, bucket: str) -> str:
    """Return a bucket as a halt names it, with its region: a wrong region is the usual mistake."""
    return f"{region}/{bucket}"


def bucket_location_column(table: sa.FromClause = jobs) -> sa.ColumnElement[str]:
    """Return the same as an expression on the table of jobs."""
    location: sa.ColumnElement[str] = table.c.region + "/" + table.c.bucket
    return location
