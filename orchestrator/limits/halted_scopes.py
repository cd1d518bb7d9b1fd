"""What a person has to mend before more can be sent; kept for the length of one run."""

from collections.abc import Mapping

import anyio
import sqlalchemy as sa

from orchestrator.cloud.error_codes import MAY_CONCERN_ONE_IMAGE
from orchestrator.model import Code, ExportOrder, Reaction, Scope, Stop
from orchestrator.store.tables import jobs

WHOLE_ACCOUNT = frozenset({Scope.CREDENTIAL, Scope.ACCOUNT, Scope.CLOCK})
"""Scopes in which a stop holds up everything."""


class Stops:
    """The stops in force."""

    def __init__(self) -> None:
        self.active: list[Stop] = []
        self._suspected: dict[str, tuple[float, int | None]] = {}

    def begin(self, stop: Stop) -> bool:
        """Stops a scope; false when it is stopped already."""
        if self.has(stop):
            return False
        self.active.append(stop)
        return True

    def end(self, stop: Stop) -> None:
        """Ends this very stop: what it was for is mended."""
        if stop in self.active:
            self.active.remove(stop)

    def has(self, stop: Stop) -> bool:
        """Whether its scope is stopped, for this reason or another."""
        return any((held.scope, held.value) == (stop.scope, stop.value) for held in self.active)

    def hear(self, stop: Stop, code: Code, *, job_id: int | None, asked_at: float) -> bool:
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
        return self.begin(stop)

    def lift(self) -> None:
        """Forgets every stop: the next requests find out whether a person has mended it."""
        self.active.clear()
        self._suspected.clear()

    def accepted(self) -> None:
        """Something went through: what was suspected is mended."""
        self._suspected.clear()

    def holds_all(self, host: str) -> bool:
        """Whether nothing can be sent to this endpoint."""
        return any(
            stop.scope in WHOLE_ACCOUNT or (stop.scope is Scope.ENDPOINT and stop.value == host)
            for stop in self.active
        )

    def holds(self, host: str, order: ExportOrder) -> bool:
        """Whether this order must not be sent."""
        places = places_of(order)
        return self.holds_all(host) or any(
            places.get(stop.scope) == stop.value for stop in self.active
        )

    def permitted(self) -> sa.ColumnElement[bool]:
        """Jobs that no stop holds up, as a condition on the table of jobs."""
        columns = {
            Scope.REGION: jobs.c.region,
            Scope.BUCKET: bucket_place(),
            Scope.ROLE: sa.func.coalesce(jobs.c.role_name, ""),
        }
        return sa.and_(
            sa.true(),
            *(columns[stop.scope] != stop.value for stop in self.active if stop.scope in columns),
        )


def places_of(order: ExportOrder) -> Mapping[Scope, str]:
    """What a stop of region, bucket or role would name to hold up this order."""
    return {
        Scope.REGION: order.region,
        Scope.BUCKET: place_of(order.region, order.bucket),
        Scope.ROLE: order.role_name or "",
    }


def place_of(region: str, bucket: str) -> str:
    """A bucket as it is stopped: with its region, since a wrong region is the usual fault."""
    return f"{region}/{bucket}"


def bucket_place(table: sa.FromClause = jobs) -> sa.ColumnElement[str]:
    """The same of each job, as an expression on the table of jobs."""
    place: sa.ColumnElement[str] = table.c.region + "/" + table.c.bucket
    return place
