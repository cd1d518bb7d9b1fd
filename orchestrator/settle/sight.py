"""Which buckets we may look into; without a look an accepted job rests and an unknown one stays."""

from collections import Counter
from collections.abc import Callable
from enum import StrEnum

import anyio
import sqlalchemy as sa

from orchestrator.cloud.codes import cos_code_for
from orchestrator.errors import CloudRefusal
from orchestrator.model import Reaction, Scope, Stop
from orchestrator.pace.stops import WHOLE_ACCOUNT, Stops, bucket_place, place_of
from orchestrator.tables import jobs

_REFUSALS = 3
"""Refused looks in a row that mean a lost right: a single 403 may be a passing fault."""


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
    """

    def __init__(self, mode: VerifyMode, stops: Stops, tell: Callable[[str], None]) -> None:
        self.mode = mode
        self.blind: set[str] = set()
        self._stops = stops
        self._tell = tell
        self._refusals: Counter[str] = Counter()
        self._refused_at: dict[str, float] = {}

    def saw(self, place: str) -> None:
        """A look into this bucket succeeded."""
        self._refusals.pop(place, None)

    def refused(self, place: str, refusal: CloudRefusal, began: float) -> bool:
        """A look into this bucket was refused; true when it counts as unreadable from now on.

        What the account as a whole is refused for is not held against a bucket.

        Args:
            began: when the look did, on the event loop's clock: looks that were in the air
                together are refused together, and count as one.
        """
        code = cos_code_for(refusal)
        passing = code.reaction is Reaction.RETRY or code.scope in WHOLE_ACCOUNT
        if passing or began <= self._refused_at.get(place, 0.0):
            return False
        self._refused_at[place] = anyio.current_time()
        self._refusals[place] += 1
        if place in self.blind or self._refusals[place] < _REFUSALS:
            return False
        self.blind.add(place)
        if self.mode is VerifyMode.REQUIRED:
            self._stops.begin(Stop(Scope.BUCKET, place, code.name, refusal.said, code.remedy))
        self._tell(
            f"The bucket {place} may not be read ({refusal}): its exports are not verified, and "
            f"what is unknown there stays unknown. {code.remedy}"
        )
        return True

    def sees(self, region: str, bucket: str) -> bool:
        """Whether looks into this bucket may succeed."""
        return self.mode is not VerifyMode.OFF and place_of(region, bucket) not in self.blind

    def visible(self, table: sa.FromClause = jobs) -> sa.ColumnElement[bool]:
        """Jobs whose objects can be looked for, as a condition on the table of jobs."""
        if self.mode is VerifyMode.OFF:
            return sa.false()
        return bucket_place(table).not_in(sorted(self.blind))

    def resting(self) -> sa.ColumnElement[bool]:
        """Jobs for which accepted is the end: nobody wants, or is allowed, to see more."""
        if self.mode is VerifyMode.REQUIRED:
            return sa.false()
        return ~self.visible()

    def open_eyes(self) -> None:
        """Forgets what proved unreadable: the next looks find out again."""
        self.blind.clear()
        self._refusals.clear()
