"""Which buckets we may look into; without a look an accepted job rests and an unknown one stays."""

from collections import Counter
from enum import StrEnum

import sqlalchemy as sa

from orchestrator.pace.stops import bucket_place

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
    """

    def __init__(self, mode: VerifyMode) -> None:
        self.mode = mode
        self.blind: set[str] = set()
        self._refusals: Counter[str] = Counter()

    def saw(self, place: str) -> None:
        """A look into this bucket succeeded."""
        self._refusals.pop(place, None)

    def refused(self, place: str) -> bool:
        """A look into this bucket was refused; true when it counts as unreadable from now on."""
        self._refusals[place] += 1
        if place in self.blind or self._refusals[place] < _REFUSALS:
            return False
        self.blind.add(place)
        return True

    def sees(self, region: str, bucket: str) -> bool:
        """Whether looks into this bucket may succeed."""
        return self.mode is not VerifyMode.OFF and f"{region}/{bucket}" not in self.blind

    def visible(self) -> sa.ColumnElement[bool]:
        """Jobs whose objects can be looked for, as a condition on the table of jobs."""
        if self.mode is VerifyMode.OFF:
            return sa.false()
        return bucket_place().not_in(sorted(self.blind))
