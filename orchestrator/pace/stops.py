"""What a person has to mend before more can be sent; kept for the length of one run."""

from datetime import datetime

import sqlalchemy as sa

from orchestrator.model import Code, Reaction, Scope, Stop
from orchestrator.tables import jobs

_WHOLE_ACCOUNT = frozenset({Scope.CREDENTIAL, Scope.ACCOUNT, Scope.CLOCK})

_SECOND_TIME = frozenset({"AuthFailure.UnauthorizedOperation", "UnauthorizedOperation"})
"""Codes that a policy on single images may give: one image's refusal says little of the rest."""


class Stops:
    """The stops in force."""

    def __init__(self) -> None:
        self.active: list[Stop] = []
        self._suspected: dict[str, datetime] = {}

    def hear(self, stop: Stop, code: Code, *, claimed_at: datetime, now: datetime) -> bool:
        """Takes note of a refusal that calls for a stop; true when it begins one.

        What a correction may mend (clock, token), or what one image may owe to a policy of its
        own, stops its scope only when a request that was claimed after the first such refusal
        meets it again.
        """
        if any((held.scope, held.value) == (stop.scope, stop.value) for held in self.active):
            return False
        mendable = code.reaction is not Reaction.STOP or code.name in _SECOND_TIME
        if mendable and claimed_at <= self._suspected.setdefault(code.name, now):
            return False
        self.active.append(stop)
        return True

    def accepted(self) -> None:
        """Something went through: what was suspected is mended."""
        self._suspected.clear()

    def holds_all(self, host: str) -> bool:
        """Whether nothing can be sent to this endpoint."""
        return any(
            stop.scope in _WHOLE_ACCOUNT or (stop.scope is Scope.ENDPOINT and stop.value == host)
            for stop in self.active
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


def bucket_place() -> sa.ColumnElement[str]:
    """A bucket as it is stopped: with its region, since a wrong region is the usual fault."""
    return jobs.c.region + "/" + jobs.c.bucket
