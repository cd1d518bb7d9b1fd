"""How far the answers about a bucket can be believed: learned once a run, and from what is seen."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import anyio

from orchestrator.cloud.cos import CosClient
from orchestrator.errors import CloudRefusal
from orchestrator.learned_vendor_facts import NO, YES, VendorFact, facts_about, record_fact
from orchestrator.model import ObjectFacts, bucket_location
from orchestrator.store import Database
from orchestrator.verification.tracked_jobs import TrackedJob

_SECOND_LOOK = timedelta(seconds=3)
"""Time between two looks at an object, so that one that still grows has changed."""

_SECOND_LOOK_AFTER_GROWTH = timedelta(seconds=10)
"""The same in a bucket where an object was seen to grow: growth may pause."""

_LISTINGS_REFUSED_FOR = 20.0
"""Seconds from a refused listing to another one, with none answered in between, after which
listings count as refused: a single 403 may be a temporary fault."""


@dataclass(slots=True)
class _Fact:
    """What is known of one fact; ``None`` is nothing.

    Args:
        stored: value from earlier runs.
        seen: value that this run has seen.
        is_saved: whether `seen` is in the store, too.
    """

    stored: str | None = None
    seen: str | None = None
    is_saved: bool = True

    @property
    def known(self) -> str | None:
        """What this run has seen, or else earlier ones; a "no" of either counts."""
        return NO if NO in {self.seen, self.stored} else self.seen or self.stored


class BucketTrust:
    """What this run, and this store before, have seen of the answers about one bucket.

    Attributes:
        is_listing_refused: look-ups that need listings have to use HEAD instead.
    """

    def __init__(self) -> None:
        self.calibrating = anyio.Lock()
        self.is_calibrated = False
        self.is_listing_refused = False
        self._listing_refused_since: float | None = None
        self._facts = {fact: _Fact() for fact in VendorFact}
        self._first_looks: dict[str, tuple[float, int, str]] = {}
        """By key, when an object was first seen as it is: time, size and ETag."""

    def load(self, stored: Mapping[VendorFact, str]) -> None:
        """Take over what earlier runs have learned."""
        for fact, value in stored.items():
            self._facts[fact].stored = value

    @property
    def is_head_trusted(self) -> bool:
        """Whether an object that HEAD finds exists; if not, only listings are used."""
        return self._facts[VendorFact.HEAD_TRUSTED].seen != NO

    @property
    def is_listing_trusted(self) -> bool:
        """Whether listings show what they are asked for; if not, only HEAD is used."""
        return self._facts[VendorFact.LISTING_TRUSTED].seen != NO

    @property
    def uploads_are_visible(self) -> bool:
        """Whether an open upload of an export was ever seen."""
        return self._facts[VendorFact.UPLOADS_VISIBLE].known == YES

    @property
    def second_look(self) -> timedelta:
        """Time after which an object is looked at again to see whether it grows."""
        has_grown = self._facts[VendorFact.OBJECTS_COMPLETE].known == NO
        return _SECOND_LOOK_AFTER_GROWTH if has_grown else _SECOND_LOOK

    @property
    def shows_absence(self) -> bool:
        """Whether an object that is not found is not there."""
        return self.is_head_trusted or self._facts[VendorFact.LISTING_TRUSTED].known == YES

    def record_listing(self, *, is_refused: bool) -> None:
        """Record a look-up that needed listings."""
        now = anyio.current_time()
        if not is_refused:
            self._listing_refused_since = None
        elif self._listing_refused_since is None:
            self._listing_refused_since = now
        since = self._listing_refused_since
        self.is_listing_refused = since is not None and now - since >= _LISTINGS_REFUSED_FOR

    def learn(self, fact: VendorFact, value: str) -> None:
        """Take note of what was seen; what was seen not to hold stays so for this run."""
        one = self._facts[fact]
        if one.seen not in {value, NO}:
            one.seen, one.is_saved = value, False

    def learn_completeness(self) -> None:
        """Take note that an object was not there while it was written, or has not grown."""
        if self._facts[VendorFact.OBJECTS_COMPLETE].known != NO:
            self.learn(VendorFact.OBJECTS_COMPLETE, YES)

    def are_unchanged(self, objects: Sequence[ObjectFacts]) -> bool:
        """Return whether objects are unchanged at a second look, or do not need one.

        An object counts as complete at first sight once this store has seen one of this bucket stay
        the same, and none grow.
        """
        if self._facts[VendorFact.OBJECTS_COMPLETE].known == YES:
            return True
        now, wait = anyio.current_time(), self.second_look.total_seconds()
        are_unchanged = True
        for facts in objects:
            is_new = facts.key not in self._first_looks
            since, *before = self._first_looks.setdefault(facts.key, (now, facts.size, facts.etag))
            if before != [facts.size, facts.etag]:
                self.learn(VendorFact.OBJECTS_COMPLETE, NO)
                self._first_looks[facts.key] = now, facts.size, facts.etag
                since = now
            are_unchanged &= not is_new and now >= since + wait
        if objects and are_unchanged:
            self.learn_completeness()
        return are_unchanged

    def forget(self, objects: Iterable[ObjectFacts]) -> None:
        """Drop the first looks at objects of a job that needs no further look."""
        for facts in objects:
            self._first_looks.pop(facts.key, None)

    async def save(self, database: Database, job: TrackedJob) -> None:
        """Store what was learned since the last call; usually nothing.

        Args:
            job: any job of the bucket.
        """
        # in order, so that two transactions do not wait for each other's rows
        facts = sorted(self._facts.items())
        learned = [(fact, one.seen) for fact, one in facts if one.seen and not one.is_saved]
        if not learned:
            return
        location = bucket_location(job.region, job.bucket)
        async with database.write() as connection:
            now = await database.now(connection)
            for fact, value in learned:
                await record_fact(connection, job.profile, location, fact, value, now)
        # not before the commit; and another look may have learned more meanwhile
        for fact, value in learned:
            self._facts[fact].is_saved = self._facts[fact].seen == value


async def calibrate(
    database: Database, cos: CosClient, trust: BucketTrust, job: TrackedJob
) -> None:
    """Check once per run that a job's bucket exists, and whether to trust HEAD.

    HEAD is not trusted if it finds an object under a key that cannot exist.

    Raises:
        CloudRefusal: the bucket is missing or elsewhere, or COS answered with another error.
        CredentialError, httpx.HTTPError: as for every read.
    """
    if trust.is_calibrated:
        return
    async with trust.calibrating:
        if trust.is_calibrated:  # by the one that held the lock before
            return
        async with database.read() as connection:
            location = bucket_location(job.region, job.bucket)
            trust.load(await facts_about(connection, job.profile, location))
        try:
            await cos.head_bucket(job.region, job.bucket)
        except CloudRefusal as refusal:
            if refusal.http_status == 400:
                # the refusal of a HEAD request has no code, that of a listing has one
                await cos.list_objects(job.region, job.bucket, _missing_key())
            elif refusal.http_status != 403:
                raise
        is_found = await finds_missing_key(cos, job)
        if is_found is not None:
            trust.learn(VendorFact.HEAD_TRUSTED, NO if is_found else YES)
        await trust.save(database, job)
        trust.is_calibrated = True


async def finds_missing_key(cos: CosClient, job: TrackedJob) -> bool | None:
    """Return whether HEAD finds a key that cannot exist; ``None`` if forbidden."""
    try:
        return await cos.head_object(job.region, job.bucket, _missing_key()) is not None
    except CloudRefusal as refusal:
        if refusal.http_status == 200:  # something answered that is not COS
            return True
        if refusal.http_status == 403:
            return None
        raise


def _missing_key() -> str:
    return f"no-such-object-{secrets.token_hex(8)}"
