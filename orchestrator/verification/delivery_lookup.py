"""Look up what belongs to an accepted job in its bucket: by listings, and by HEAD."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.error_codes import UNTRUSTED_READS
from orchestrator.errors import CloudRefusal
from orchestrator.learned_vendor_facts import YES, VendorFact
from orchestrator.model import ObjectFacts, UploadFacts
from orchestrator.verification.bucket_trust import BucketTrust
from orchestrator.verification.evidence import writing_has_ended
from orchestrator.verification.object_lookup import (
    head_or_listed,
    is_own,
    listed_objects,
    open_uploads,
    time_since_request,
    trace_age_of,
)
from orchestrator.verification.tracked_jobs import TrackedJob

Listing = dict[str, ObjectFacts] | CloudRefusal
"""The listed objects by key, or why they cannot be listed, so that only HEAD can tell."""


@dataclass(slots=True)
class DeliveryLookup:
    """The look-ups of one accepted job.

    Every method raises CloudRefusal, CredentialError or httpx.HTTPError if a request failed, which
    proves nothing.

    Args:
        trust: what is known of the answers about this bucket; look-ups add to it.
        age: of the export.
        clocks: the times that may be that of COS, of the same moment as `age`: look-ups take time.
        undated: keys of objects of which the last call of `own_objects` could not tell whether they
            belong to the job.
    """

    cos: CosClient
    trust: BucketTrust
    job: TrackedJob
    age: timedelta
    clocks: Sequence[datetime]
    undated: list[str] = field(default_factory=list)

    async def uploads(self) -> list[UploadFacts] | None:
        """Return the open uploads of the job; ``None`` if they may not be listed."""
        try:
            uploads = await open_uploads(self.cos, self.trust, self.job)
        except CloudRefusal as refusal:
            if not 400 <= refusal.http_status < 500:
                raise
            return None
        if uploads:
            self.trust.learn(VendorFact.UPLOADS_VISIBLE, YES)
        return uploads

    async def listing(self) -> Listing:
        """Return the objects under the keys of the job, or why only HEAD can tell."""
        listed: Listing = {}
        if self.trust.is_listing_trusted:
            try:
                listed = await listed_objects(self.cos, self.trust, self.job)
            except CloudRefusal as refusal:
                if refusal.http_status != 403:
                    raise
                return refusal
        # the listing itself may have shown that it is not to be trusted
        if self.trust.is_listing_trusted:
            return listed
        return untrusted("show other keys than asked for")

    async def own_objects(
        self, listing: Listing, *, every_key: bool = False
    ) -> dict[str, ObjectFacts]:
        """Return the objects that belong to the job, by key; set `undated`.

        Without a listing HEAD decides alone. With one, an object must be listed and HEAD must find
        it. If HEAD is not trusted or permitted, or shows another size or ETag, the facts come from
        the listing: it names its bucket and prefix, while the answer to a HEAD may be that of
        another request.

        Args:
            every_key: send a HEAD for each required key, also where the listing does not show it.
        """
        refused = listing if isinstance(listing, CloudRefusal) else None
        if refused and not (self.trust.is_head_trusted and self.job.required):
            raise refused
        objects = {} if isinstance(listing, CloudRefusal) else dict(listing)
        since = time_since_request(self.job, self.age)
        sent_at = [] if since is None else [now - since for now in self.clocks]
        for key in (one.key for one in self.job.required if self.trust.is_head_trusted):
            if shown := objects.get(key):
                is_wanted = is_own(self.job, shown, sent_at)
            else:
                is_wanted = every_key or refused is not None
            if is_wanted:
                objects.pop(key, None)
                if facts := await head_or_listed(self.cos, self.job, key, shown, refused):
                    objects[key] = facts
        owned = {key: is_own(self.job, facts, sent_at) for key, facts in objects.items()}
        self.undated = [key for key, is_owned in owned.items() if is_owned is None]
        return {key: facts for key, facts in objects.items() if owned[key]}

    def trace_age(
        self, objects: Mapping[str, ObjectFacts], uploads: Sequence[UploadFacts] | None
    ) -> timedelta | None:
        """Return the time since the first trace under the job's tag; see `trace_age_of`."""
        moments = [one.last_modified for one in objects.values() if self.job.is_tagged(one.key)]
        moments += [one.initiated for one in uploads or ()]
        return trace_age_of(self.job, moments, self.clocks)

    def writing_has_ended(
        self, objects: Mapping[str, ObjectFacts], *, uploads_were_listed: bool = True
    ) -> bool:
        """Return whether nothing was written for so long that nothing more is expected."""
        return writing_has_ended(
            objects,
            since_request=time_since_request(self.job, self.age),
            clocks=self.clocks,
            uploads_are_visible=self.trust.uploads_are_visible and uploads_were_listed,
        )


def untrusted(listings: str) -> CloudRefusal:
    """Return the error for a bucket in which an object that is not found may exist.

    Args:
        listings: what is wrong with its listings.
    """
    message = f"its listings {listings}, and HEAD proves nothing"
    return CloudRefusal(UNTRUSTED_READS, message, http_status=200)
