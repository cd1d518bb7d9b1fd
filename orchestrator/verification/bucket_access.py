"""Track whether buckets can be read: permitted, refused, or not answering at present.

Without look-ups an accepted job stays accepted and an unknown job stays unknown.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import anyio
import sqlalchemy as sa

from orchestrator.cloud.error_codes import OTHER_REGION, cos_code_for
from orchestrator.cloud.http_client import ProxyRefusalError, UntrustedCertificateError
from orchestrator.errors import CloudRefusal
from orchestrator.limits.circuit_breaker import CircuitBreaker
from orchestrator.limits.halted_scopes import WHOLE_ACCOUNT, HaltedScopes
from orchestrator.model import Halt, Reaction, Scope, bucket_location
from orchestrator.settings import Settings, VerifyMode
from orchestrator.store.tables import any_current, bucket_location_column, jobs
from orchestrator.verification.bucket_trust import BucketTrust

_REFUSED_FOR = 20.0
_MIN_REFUSED_FOR = 5.0
"""Seconds for which every look-up must be refused: a single 403 may be a temporary fault."""

_REFUSED_LOOKUPS = 10
"""The same as a number of look-ups, where the user has set their interval."""

_TRUST_FACTOR = 6
"""Factor by which this time is longer if the bucket was readable before in this run."""

_RETRY_FACTOR = 3
"""An unreadable bucket is tried again after this many times the time of refusals."""

_ALWAYS_HALTS = frozenset(
    {"NoSuchBucket", OTHER_REGION, ProxyRefusalError.code, UntrustedCertificateError.code}
)
"""Codes that halt the bucket in every mode: it is not where it is looked for, so that nothing can
be exported to it; or no connection to it can be opened until an operator acts."""

_TOLERATED_FAILURES = 9
"""Failed look-ups in a row that are tolerated; after one more, one job at a time is a probe."""


class BucketAccess:
    """What the look-ups of this run have shown of each bucket, by region and name.

    Args:
        halts: receives a halt for a bucket that is missing or to which no connection can be opened,
            or that must be readable and is not.
        notify: takes sentences for the user.

    Attributes:
        mode: whether to look up exports at all.
        unreadable: refused buckets, each with the time of the next try on the event loop's clock.
        problems: buckets that are refused or give no answer, each with the sentence for the user.
        trust: how far the answers about each bucket can be believed.
    """

    def __init__(
        self,
        settings: Settings,
        halts: HaltedScopes,
        notify: Callable[[str], None],
    ) -> None:
        self.mode = settings.verify
        self.unreadable: dict[str, float] = {}
        self.problems: dict[str, str] = {}
        self.trust: defaultdict[str, BucketTrust] = defaultdict(BucketTrust)
        self._halts = halts
        self._notify = notify
        interval = settings.verify_interval
        usual = _REFUSED_FOR if interval is None else _REFUSED_LOOKUPS * interval.total_seconds()
        self._refused_for = max(_MIN_REFUSED_FOR, usual)
        self._refused_since: dict[str, float] = {}
        self._readable: set[str] = set()
        self._halted: dict[str, Halt] = {}
        timeout = settings.request_timeout.total_seconds()
        self._breakers = defaultdict[str, CircuitBreaker](partial(CircuitBreaker, timeout))

    def record_success(self, bucket: str) -> bool:
        """Record an answered look-up; return whether the bucket was failing before."""
        self._readable.add(bucket)
        self._refused_since.pop(bucket, None)
        self.problems.pop(bucket, None)
        if (halt := self._halted.pop(bucket, None)) is not None:
            self._halts.remove(halt)
        if self.unreadable.pop(bucket, None) is not None:
            self._notify(f"The bucket {bucket} may be read again: its exports are verified.")
        return self._record_answer(bucket)

    def record_refusal(self, bucket: str, refusal: CloudRefusal) -> bool:
        """Record a refused look-up; return whether the bucket becomes unreadable now.

        A refusal of the whole account is no fault of the bucket. A server error counts as a
        failure to answer.
        """
        code = cos_code_for(refusal)
        if code.reaction is Reaction.RETRY:
            self.record_failure(bucket, str(refusal))
            return False
        if refusal.http_status:
            self._record_answer(bucket)
        else:
            self.release_probe(bucket)
        if code.scope in WHOLE_ACCOUNT:
            return False
        now = anyio.current_time()
        is_new = bucket not in self.unreadable
        period = self._refused_for * (_TRUST_FACTOR if bucket in self._readable else 1)
        always_halts = code.name in _ALWAYS_HALTS
        if always_halts:
            period = _MIN_REFUSED_FOR
        if is_new and now - self._refused_since.setdefault(bucket, now) < period:
            return False
        self.unreadable[bucket] = now + _RETRY_FACTOR * self._refused_for
        if not is_new:
            return False
        if always_halts or self.mode is VerifyMode.REQUIRED:
            halt = Halt(Scope.BUCKET, bucket, code.name, refusal.service_message, code.remedy)
            self._halted[bucket] = halt
            self._halts.add(halt)
        reason = refusal.service_message if code.name.startswith("Client.") else str(refusal)
        self.problems[bucket] = (
            f"The bucket {bucket} cannot be read ({reason}): its exports are not verified, and "
            f"its unknown jobs stay unknown. {code.remedy}"
        )
        self._notify(self.problems[bucket])
        return True

    def record_failure(self, bucket: str, reason: str) -> None:
        """Record a look-up without a usable answer."""
        if self._breakers[bucket].record_failure(tolerated=_TOLERATED_FAILURES):
            self.problems[bucket] = (
                f"The bucket {bucket} gives no answer ({reason}); one look-up at a time."
            )
            self._notify(self.problems[bucket])

    def failing_buckets(self) -> list[str]:
        """Return the buckets that give no answer; one job at a time probes each of them."""
        return sorted(bucket for bucket, breaker in self._breakers.items() if breaker.is_open)

    def admit_probe(self, bucket: str) -> bool:
        """Return whether it is time for one job to try a failing bucket."""
        return self._breakers[bucket].admit()

    def release_probe(self, bucket: str) -> None:
        """Give back an unused admission, so that another job may be the probe."""
        self._breakers[bucket].release()

    def is_proven_readable(self, region: str, bucket: str) -> bool:
        """Return whether look-ups succeed here, so that the ends of exports are seen."""
        location = bucket_location(region, bucket)
        return location in self._readable and location not in self._refused_since

    def was_readable(self, region: str, bucket: str) -> bool:
        """Return whether look-ups have succeeded here in this run, and may still do so."""
        was_answered = bucket_location(region, bucket) in self._readable
        return was_answered and self.may_be_readable(region, bucket)

    def may_be_readable(self, region: str, bucket: str) -> bool:
        """Return whether a look-up may succeed here."""
        is_refused = bucket_location(region, bucket) in self.unreadable_buckets()
        return self.mode is not VerifyMode.OFF and not is_refused

    def readable(self, table: sa.FromClause = jobs) -> sa.ColumnElement[bool]:
        """Jobs whose objects can be looked up when this condition is executed."""
        if self.mode is VerifyMode.OFF:
            return sa.false()
        return bucket_location_column(table).not_in(any_current(self.unreadable_buckets))

    def unreadable_buckets(self) -> list[str]:
        """Return the refused buckets that are not to be tried yet."""
        now = anyio.current_time()
        return sorted(bucket for bucket, again_at in self.unreadable.items() if again_at > now)

    def unlisted_buckets(self) -> list[str]:
        """Return the buckets in which only HEAD shows what an unknown job has left."""
        return sorted(bucket for bucket, trust in self.trust.items() if trust.is_listing_refused)

    def unverifiable(self) -> sa.ColumnElement[bool]:
        """Jobs that stay accepted: look-ups are switched off or not permitted.

        Those of a halted bucket do not: another run may verify them after an operator has acted.
        """
        if self.mode is VerifyMode.REQUIRED:
            return sa.false()
        is_halted = bucket_location_column().in_(any_current(lambda: sorted(self._halted)))
        return ~self.readable() & ~is_halted

    def reset(self) -> None:
        """Forget all refusals: the next look-ups test permissions and answers again."""
        self.unreadable.clear()
        self.problems.clear()
        self.trust.clear()
        self._refused_since.clear()

    def _record_answer(self, bucket: str) -> bool:
        was_failing = self._breakers[bucket].record_success()
        if was_failing:
            self.problems.pop(bucket, None)
            self._notify(f"The bucket {bucket} answers again.")
        return was_failing
