"""What a person has to mend before more can be sent; kept for the length of one run."""

from collections.abc import Mapping

import anyio
import sqlalchemy as sa

from orchestrator.cloud.error_codes import MAY_CONCERN_ONE_IMAGE
from orchestrator.model import Code, ExportOrder, Halt, Reaction, Scope
from orchestrator.store.tables import jobs

WHOLE_ACCOUNT = frozenset({Scope.CREDENTIAL, Scope.ACCOUNT, Scope.CLOCK})
"""Scopes in which a stop holds up everything."""


class HaltedScopes:
    """The stops in force."""

    def __init__(self) -> None:
        self.active: list[Halt] = []
        self._suspected: dict[str, tuple[float, int | None]] = {}

    def add(self, halt: Halt) -> bool:
        """Stops a scope; false when it is stopped already."""
        if self.contains(halt):
            return False
        self.active.append(halt)
        return True

    def remove(self, halt: Halt) -> None:
        """Ends this very stop: what it was for is mended."""
        if halt in self.active:
            self.active.remove(halt)

    def contains(self, halt: Halt) -> bool:
        """Whether its scope is stopped, for this reason or another."""
        return any((held.scope, held.value) == (halt.scope, halt.value) for held in self.active)

    def record_refusal(
        self, halt: Halt, code: Code, *, job_id: int | None, asked_at: float
    ) -> bool:
        """Takes note of a refusal that calls for a stop; true when it begins one.

        What a correction may mend (clock, token) stops its scope only when a request that was
        claimed after the first such refusal meets it again; what one image may owe to a policy
        of its own, only when another job's request does.

        Args:
            asked_at: when the request was claimed, on the event loop's clock.
        """
        denied = code.name in MAY_CONCERN_ONE_IMAGE
        if denied or code.reaction is not Reaction.STOP:
            now = anyio.current_time()
            first, suspect = self._suspected.setdefault(code.name, (now, job_id))
            if asked_at <= first or (denied and suspect == job_id):
                return False
        return self.add(halt)

    def clear(self) -> None:
        """Forgets every stop: the next requests find out whether a person has mended it."""
        self.active.clear()
        self._suspected.clear()

    def record_acceptance(self) -> None:
        """Something went through: what was suspected is mended."""
        self._suspected.clear()

    def blocks_endpoint(self, host: str) -> bool:
        """Whether nothing can be sent to this endpoint."""
        return any(
            halt.scope in WHOLE_ACCOUNT or (halt.scope is Scope.ENDPOINT and halt.value == host)
            for halt in self.active
        )

    def blocks(self, host: str, order: ExportOrder) -> bool:
        """Whether this order must not be sent."""
        scope_values = scope_values_of(order)
        return self.blocks_endpoint(host) or any(
            scope_values.get(halt.scope) == halt.value for halt in self.active
        )

    def permitted_jobs(self) -> sa.ColumnElement[bool]:
        """Jobs that no stop holds up, as a condition on the table of jobs."""
        columns = {
            Scope.REGION: jobs.c.region,
            Scope.BUCKET: bucket_location_column(),
            Scope.ROLE: sa.func.coalesce(jobs.c.role_name, ""),
        }
        return sa.and_(
            sa.true(),
            *(columns[halt.scope] != halt.value for halt in self.active if halt.scope in columns),
        )


def scope_values_of(order: ExportOrder) -> Mapping[Scope, str]:
    """What a stop of region, bucket or role would name to hold up this order."""
    return {
        Scope.REGION: order.region,
        Scope.BUCKET: bucket_location(order.region, order.bucket),
        Scope.ROLE: order.role_name or "",
    }


def bucket_location(region: str, bucket: str) -> str:
    """A bucket as it is stopped: with its region, since a wrong region is the usual fault."""
    return f"{region}/{bucket}"


def bucket_location_column(table: sa.FromClause = jobs) -> sa.ColumnElement[str]:
    """The same of each job, as an expression on the table of jobs."""
    place: sa.ColumnElement[str] = table.c.region + "/" + table.c.bucket
    return place
