"""Which buckets we may look into; without a look an accepted job rests and an unknown one stays."""

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum

import anyio
import sqlalchemy as sa

from orchestrator.cloud.error_codes import cos_code_for
from orchestrator.errors import CloudRefusal
from orchestrator.limits.halted_scopes import (
    WHOLE_ACCOUNT,
    HaltedScopes,
    bucket_location,
    bucket_location_column,
)
from orchestrator.model import Halt, Reaction, Scope
from orchestrator.store.tables import jobs

_SHORTEST = 5.0
_USUAL = 20.0
"""Seconds for which every look must be refused: a 403 may be a passing fault."""

_LOOKS = 10
"""As many looks, where the user has set how often to look."""

_TRUST = 6
"""So many times as long for a bucket that was readable before in the same run."""

_HOPE = 3
"""After so many times the usual time an unreadable bucket is looked into again."""


class VerifyMode(StrEnum):
    """Whether exports are looked for in the bucket."""

    AUTO = "auto"
    """Where it is permitted."""
    REQUIRED = "required"
    """A bucket that may not be read stops its exports."""
    OFF = "off"
    """Never: accepted is where a job rests."""


class BucketPermissions:
    """The buckets that proved unreadable during one run.

    Args:
        mode: whether to look at all.
        stops: take a bucket that must be readable and is not.
        tell: takes sentences for the user.
        interval: time between looks at one job, where the user has set it.

    Attributes:
        blind: unreadable buckets, each with the moment on the event loop's clock from which
            somebody may find out again.
    """

    def __init__(
        self,
        mode: VerifyMode,
        halts: HaltedScopes,
        notify: Callable[[str], None],
        interval: timedelta | None = None,
    ) -> None:
        self.mode = mode
        self.unreadable: dict[str, float] = {}
        self._halts = halts
        self._notify = notify
        looks = _USUAL if interval is None else _LOOKS * interval.total_seconds()
        self._busy_retry = max(_SHORTEST, looks)
        self._refused_since: dict[str, float] = {}
        self._seen: set[str] = set()
        self._halted: dict[str, Halt] = {}

    def record_success(self, place: str) -> None:
        """A look into this bucket succeeded."""
        self._seen.add(place)
        self._refused_since.pop(place, None)
        if (halt := self._halted.pop(place, None)) is not None:
            self._halts.remove(halt)
        if self.unreadable.pop(place, None) is not None:
            self._notify(f"The bucket {place} may be read again: its exports are verified.")

    def record_refusal(self, place: str, refusal: CloudRefusal) -> bool:
        """A look into this bucket was refused; true when it counts as unreadable from now on.

        What the account as a whole is refused for is not held against a bucket.
        """
        code = cos_code_for(refusal)
        if code.reaction is Reaction.RETRY or code.scope in WHOLE_ACCOUNT:
            return False
        now = anyio.current_time()
        is_new = place not in self.unreadable
        busy_retry = self._busy_retry * (_TRUST if place in self._seen else 1)
        if is_new and now - self._refused_since.setdefault(place, now) < busy_retry:
            return False
        self.unreadable[place] = now + _HOPE * self._busy_retry
        if not is_new:
            return False
        if self.mode is VerifyMode.REQUIRED:
            halt = Halt(Scope.BUCKET, place, code.name, refusal.said, code.remedy)
            self._halted[place] = halt
            self._halts.add(halt)
        self._notify(
            f"The bucket {place} may not be read ({refusal}): its exports are not verified, and "
            f"what is unknown there stays unknown. {code.remedy}"
        )
        return True

    def is_proven_readable(self, region: str, bucket: str) -> bool:
        """Whether looks into this bucket do succeed: then the ends of exports are seen."""
        place = bucket_location(region, bucket)
        return place in self._seen and place not in self._refused_since

    def may_be_readable(self, region: str, bucket: str) -> bool:
        """Whether looks into this bucket may succeed."""
        return (
            self.mode is not VerifyMode.OFF
            and bucket_location(region, bucket) not in self.unreadable_buckets()
        )

    def readable(self, table: sa.FromClause = jobs) -> sa.ColumnElement[bool]:
        """Jobs whose objects can be looked for, as a condition on the table of jobs."""
        if self.mode is VerifyMode.OFF:
            return sa.false()
        return bucket_location_column(table).not_in(self.unreadable_buckets())

    def unreadable_buckets(self) -> list[str]:
        """Unreadable buckets into which it is too early to look again."""
        now = anyio.current_time()
        return sorted(place for place, again_at in self.unreadable.items() if again_at > now)

    def unverifiable(self) -> sa.ColumnElement[bool]:
        """Jobs for which accepted is the end: nobody wants, or is allowed, to see more."""
        if self.mode is VerifyMode.REQUIRED:
            return sa.false()
        return ~self.readable()

    def reset(self) -> None:
        """Forgets what proved unreadable: the next looks find out again."""
        self.unreadable.clear()
        self._refused_since.clear()
