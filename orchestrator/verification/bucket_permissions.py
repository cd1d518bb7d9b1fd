"""Which buckets we may look into; without a look an accepted job rests and an unknown one stays."""

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum

import anyio
import sqlalchemy as sa

from orchestrator.cloud.error_codes import cos_code_for
from orchestrator.errors import CloudRefusal
from orchestrator.limits.halted_scopes import WHOLE_ACCOUNT, Stops, bucket_place, place_of
from orchestrator.model import Reaction, Scope, Stop
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


class Sight:
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
        stops: Stops,
        tell: Callable[[str], None],
        interval: timedelta | None = None,
    ) -> None:
        self.mode = mode
        self.blind: dict[str, float] = {}
        self._stops = stops
        self._tell = tell
        looks = _USUAL if interval is None else _LOOKS * interval.total_seconds()
        self._patience = max(_SHORTEST, looks)
        self._refused_since: dict[str, float] = {}
        self._seen: set[str] = set()
        self._stopped: dict[str, Stop] = {}

    def saw(self, place: str) -> None:
        """A look into this bucket succeeded."""
        self._seen.add(place)
        self._refused_since.pop(place, None)
        if (stop := self._stopped.pop(place, None)) is not None:
            self._stops.end(stop)
        if self.blind.pop(place, None) is not None:
            self._tell(f"The bucket {place} may be read again: its exports are verified.")

    def refused(self, place: str, refusal: CloudRefusal) -> bool:
        """A look into this bucket was refused; true when it counts as unreadable from now on.

        What the account as a whole is refused for is not held against a bucket.
        """
        code = cos_code_for(refusal)
        if code.reaction is Reaction.RETRY or code.scope in WHOLE_ACCOUNT:
            return False
        now = anyio.current_time()
        is_new = place not in self.blind
        patience = self._patience * (_TRUST if place in self._seen else 1)
        if is_new and now - self._refused_since.setdefault(place, now) < patience:
            return False
        self.blind[place] = now + _HOPE * self._patience
        if not is_new:
            return False
        if self.mode is VerifyMode.REQUIRED:
            stop = Stop(Scope.BUCKET, place, code.name, refusal.said, code.remedy)
            self._stopped[place] = stop
            self._stops.begin(stop)
        self._tell(
            f"The bucket {place} may not be read ({refusal}): its exports are not verified, and "
            f"what is unknown there stays unknown. {code.remedy}"
        )
        return True

    def proves(self, region: str, bucket: str) -> bool:
        """Whether looks into this bucket do succeed: then the ends of exports are seen."""
        place = place_of(region, bucket)
        return place in self._seen and place not in self._refused_since

    def sees(self, region: str, bucket: str) -> bool:
        """Whether looks into this bucket may succeed."""
        return self.mode is not VerifyMode.OFF and place_of(region, bucket) not in self.closed()

    def visible(self, table: sa.FromClause = jobs) -> sa.ColumnElement[bool]:
        """Jobs whose objects can be looked for, as a condition on the table of jobs."""
        if self.mode is VerifyMode.OFF:
            return sa.false()
        return bucket_place(table).not_in(self.closed())

    def closed(self) -> list[str]:
        """Unreadable buckets into which it is too early to look again."""
        now = anyio.current_time()
        return sorted(place for place, again_at in self.blind.items() if again_at > now)

    def resting(self) -> sa.ColumnElement[bool]:
        """Jobs for which accepted is the end: nobody wants, or is allowed, to see more."""
        if self.mode is VerifyMode.REQUIRED:
            return sa.false()
        return ~self.visible()

    def open_eyes(self) -> None:
        """Forgets what proved unreadable: the next looks find out again."""
        self.blind.clear()
        self._refused_since.clear()
