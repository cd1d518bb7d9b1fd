"""Decide whether a request of a cloud account may be sent now; learn from its outcome.

Three things can hold a request back: the rate limit of its stream, an endpoint that fails (circuit
breaker), and a halted or suspected scope. The concurrency limit is not among them: a claim counts
the running exports in its own transaction.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial

import anyio

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential, CredentialSource
from orchestrator.cloud.error_codes import MAY_CONCERN_ONE_IMAGE, cos_code_for
from orchestrator.errors import CloudRefusal, CredentialError
from orchestrator.limits.answer_warnings import AnswerWarnings, describe_answer, is_unusable
from orchestrator.limits.circuit_breaker import CircuitBreaker
from orchestrator.limits.halted_scopes import (
    WHOLE_ACCOUNT,
    HaltedScopes,
    describe_halt,
    halt_cause,
    scope_values_of,
)
from orchestrator.limits.rate_limiter import RateKey, RateLimiter
from orchestrator.limits.region_waits import RegionWaits
from orchestrator.limits.suspected_scopes import SuspectedScopes
from orchestrator.model import Code, Effect, Halt, Lease, Outcome, Reaction, Scope
from orchestrator.run_warnings import RunWarnings
from orchestrator.store import Database

EXPORT = "ExportImages"
DESCRIBE = "DescribeImages"

BUCKET_LOOKUP = "look into a bucket"

HALT_TOPIC = "halt of"
"""What the keys of the warnings about halts begin with."""

_TOLERATED_UNKNOWN = 4
"""Number of outcomes with unknown effect in a row that are tolerated. One more means that the
endpoint is failing, not only one job."""

_MAX_WAIT_AFTER_UNCLEAR = 5.0
"""Maximum seconds between two probes while the endpoint does answer, with HTTP 200, but the answers
do not show whether the export began."""

_PAST_THE_ACCOUNT = frozenset(
    {Reaction.CAPACITY, Reaction.SUSPECT_REGION, Reaction.BUSY, Reaction.FAIL}
)
"""Refusals that show that the credentials, the account and the endpoint were accepted."""

_MAX_UNCHARGED = 10
"""Maximum number of lost answers in a row that are not charged to a job. Later ones are charged,
because the job may be the cause."""


class Admission:
    """Decide for one account whether a request may be sent; record the outcomes.

    Args:
        profile: the account's name.
        clock: that of CVM.
        notify: called with a sentence for the user when something delays or stops requests.
        rate: requests per second allowed for each action at an endpoint; 0 is no limit.
        quota_wait: maximum wait in seconds for a quota other than the export cap.
    """

    def __init__(
        self,
        profile: str,
        database: Database,
        credentials: CredentialSource,
        notify: Callable[[str], None],
        *,
        clock: ServerClock,
        warnings: RunWarnings,
        rate: float,
        quota_wait: float,
        request_timeout: float,
    ) -> None:
        self.halts = HaltedScopes()
        self.suspected_scopes = SuspectedScopes(request_timeout)
        self.region_waits = RegionWaits(quota_wait, notify)
        self.may_read_buckets = True
        """Whether the account's credentials allow reading buckets at all."""
        self._profile = profile
        self._database = database
        self._rate = rate
        self._rate_limiters: dict[RateKey, RateLimiter] = {}
        self._credentials = credentials
        self._clock = clock
        self._warnings = warnings
        self._answers = AnswerWarnings(warnings)
        self._notify = notify
        self._breakers = defaultdict[str, CircuitBreaker](partial(CircuitBreaker, request_timeout))
        self._unclear_jobs: dict[int, str] = {}
        """Jobs whose last answer came with HTTP 200 and was unclear, with their endpoints."""
        self._begins_though_unclear: set[str] = set()
        """Endpoints whose unclear answers with HTTP 200 mean that the export has begun."""
        self._renewing = anyio.Lock()
        self._renewed: Credential | None = None
        """The credentials of the last renewal, until a request with them was accepted."""

    async def wait_for_turn(self, action: str, host: str) -> RateLimiter:
        """Wait for the circuit breaker and the rate limit; return the rate limiter."""
        await self._breakers[host].wait_until_admitted()
        key = RateKey(action, host, self._profile)
        if key not in self._rate_limiters:
            self._rate_limiters[key] = RateLimiter(self._database, key, self._rate)
        await self._rate_limiters[key].wait_for_turn()
        return self._rate_limiters[key]

    def begin_probe(self, host: str, lease: Lease) -> None:
        """Make the request of a lease the probe of each suspected scope that it lies in."""
        scopes = self._scopes(host, scope_values_of(lease.order))
        self.suspected_scopes.begin_probe(scopes, lease.job_id)

    def release(self, host: str, lease: Lease | None = None) -> None:
        """Give back an unused admission, so that another request may be the probe.

        Args:
            lease: that of the claimed job; ``None`` if no job was claimed.
        """
        self._breakers[host].release()
        if lease is not None:
            scopes = self._scopes(host, scope_values_of(lease.order))
            self.suspected_scopes.end_probe(scopes, lease.job_id)

    def is_endpoint_failing(self, host: str) -> bool:
        """Return whether only one request at a time is sent to this endpoint."""
        return self._breakers[host].is_open

    def excuses_lost_answer(self, host: str, deferrals: int) -> bool:
        """Return whether a lost answer is not charged, because the endpoint is failing.

        A job that causes the failures itself makes the endpoint look the same. So after ten
        deferrals in a row lost answers are charged, and such a job fails in the end.

        Args:
            deferrals: postponements of the job in a row that were not charged.
        """
        return self.is_endpoint_failing(host) and deferrals < _MAX_UNCHARGED

    async def credential(self) -> Credential | None:
        """Return the credentials to sign with.

        If there are none, halt the account and return ``None``.
        """
        try:
            return await self._credentials.current()
        except CredentialError as error:
            self._halt_without_credentials(error)
            return None

    def record_lookup(self, bucket: str) -> None:
        """Record a look-up that was answered: the credentials were accepted."""
        self.halts.record_acceptance(BUCKET_LOOKUP, self._scopes(bucket, {}))

    async def record_refused_lookup(
        self, bucket: str, refusal: CloudRefusal, *, asked_at: float, credential: Credential
    ) -> None:
        """Record that a look-up was refused.

        Only a refusal of the whole account counts here.

        Args:
            asked_at: on the event loop's clock.
        """
        code = cos_code_for(refusal)
        if code.scope in WHOLE_ACCOUNT:
            await self.record_outcome(
                BUCKET_LOOKUP,
                bucket,
                Outcome(code, refusal.service_message, http_status=refusal.http_status),
                scope_values={},
                asked_at=asked_at,
                credential=credential,
            )

    async def record_outcome(
        self,
        action: str,
        host: str,
        outcome: Outcome,
        *,
        scope_values: Mapping[Scope, str],
        asked_at: float,
        credential: Credential,
        job_id: int | None = None,
    ) -> None:
        """Update circuit breaker, waits of regions and halts after a request.

        Nothing is written to the store, so that the caller can do this before it records the
        outcome there. Afterwards it calls `update_warnings`.

        Args:
            action: a halt by `BUCKET_LOOKUP` also ends the reading of buckets; `DESCRIBE` halts
                only what cannot be reached.
            scope_values: region, bucket and role of the request.
            asked_at: when the request was claimed, on the event loop's clock.
            credential: the one that signed the request.
        """
        self._record_reachability(action, host, outcome, job_id)
        scopes, was_answered = self._scopes(host, scope_values), outcome.http_status is not None
        if action == EXPORT and was_answered and outcome.code.reaction in _PAST_THE_ACCOUNT:
            self._record_acceptance(EXPORT, self._scopes(host, {}))
        match outcome.code.reaction:
            case Reaction.REFRESH if await self._has_newer(credential):
                pass
            case Reaction.RESIGN if not self._clock.is_refused:
                pass  # the next signatures have another date
            case _ if action == DESCRIBE and was_answered:
                pass  # exports find out whether what it is refused for concerns them too
            case Reaction.ACCEPT:
                self._record_acceptance(action, scopes)
                self.region_waits.record_acceptance(scope_values[Scope.REGION])
                self._renewed = None
            case Reaction.CAPACITY | Reaction.SUSPECT_REGION:
                self.region_waits.record_refusal(scope_values[Scope.REGION], outcome)
            case Reaction.HALT | Reaction.RESIGN | Reaction.REFRESH:
                halt = self._halt_for(outcome, scopes)
                self._record_refusal(
                    halt, outcome.code, action=action, job_id=job_id, asked_at=asked_at
                )
            case _:
                pass
        if action == EXPORT:
            self.suspected_scopes.end_probe(scopes, job_id)

    async def update_warnings(
        self,
        action: str,
        host: str,
        region: str,
        outcome: Outcome,
        *,
        are_ends_visible: bool = True,
    ) -> None:
        """Begin and end the warnings that follow from a recorded outcome.

        This writes to the store. An outcome with a TaskId must be in the store before: a process
        that dies here, or a full disk, must not lose it.

        Args:
            are_ends_visible: the buckets of the region may show when exports end.
        """
        if action == EXPORT:
            are_ends_visible &= self.may_read_buckets
            await self._answers.record(host, region, outcome, are_ends_visible=are_ends_visible)
        if not self.is_endpoint_failing(host):
            await self._clear_warning_of_endpoint(host)
        elif _is_failure(action, outcome) and not is_unusable(outcome):
            await self._warn_of_endpoint(host, outcome)

    async def record_response(self, host: str) -> None:
        """Record that the endpoint has answered, whatever the answer was."""
        self._breakers[host].record_success()
        await self._clear_warning_of_endpoint(host)

    async def record_reconciliation(self, job_id: int) -> None:
        """Record that a job's export was found after a lost or unclear answer."""
        if (host := self._unclear_jobs.pop(job_id, None)) is not None:
            self._begins_though_unclear.add(host)
            await self.record_response(host)

    def record_exporting(self, exporting: Collection[str]) -> None:
        """Record where refusals may mean our own exports; halt what has waited too long.

        Args:
            exporting: regions in which an export of ours may be running.
        """
        self._answers.record_exporting(exporting)
        for halt in self.region_waits.expire(exporting):
            self._halt(halt)

    async def store_halts(self) -> None:
        """Make the stored warnings equal to the halts, of which the user was notified.

        ``status`` shows them, also after the run has ended because of them.
        """
        messages = {
            f"{halt.scope} {halt.value}": f"No more exports are sent for {describe_halt(halt)}"
            for halt in self.halts.active
        }
        await self._warnings.replace(HALT_TOPIC, messages, is_notified=True)

    async def clear_halts(self) -> None:
        """End every halt: the next requests find out whether its cause is gone."""
        self.halts.clear()
        self.suspected_scopes.clear()
        self.may_read_buckets = True
        self.region_waits.clear()
        self._renewed = None
        # if the credentials are still wrong, the next request reports it
        with suppress(CredentialError):
            await self._credentials.renew()

    def _record_reachability(
        self, action: str, host: str, outcome: Outcome, job_id: int | None
    ) -> None:
        breaker, is_answer = self._breakers[host], outcome.http_status == 200
        match outcome.code.reaction:
            case Reaction.PAUSE:
                breaker.record_failure()
            case Reaction.RECONCILE if action == DESCRIBE:
                breaker.release()  # this action alone may fail
            case Reaction.RECONCILE if not is_answer:
                breaker.record_failure(tolerated=_TOLERATED_UNKNOWN)
            case Reaction.RECONCILE if host not in self._begins_though_unclear:
                if job_id is not None:
                    self._unclear_jobs[job_id] = host
                breaker.record_failure(
                    tolerated=_TOLERATED_UNKNOWN, longest=_MAX_WAIT_AFTER_UNCLEAR
                )
            case _:
                if outcome.http_status is not None:
                    breaker.record_success()

    def _record_acceptance(self, action: str, scopes: Mapping[Scope, str]) -> None:
        self.halts.record_acceptance(action, scopes)
        if action == EXPORT:
            self.suspected_scopes.remove(scopes)

    def _record_refusal(
        self, halt: Halt, code: Code, *, action: str, job_id: int | None, asked_at: float
    ) -> None:
        """Halt the scope, or suspect it if the refusal may pass."""
        if self.halts.record_refusal(halt, code, action=action, job_id=job_id, asked_at=asked_at):
            self._warn(halt)
        if self.halts.contains(halt):
            self.suspected_scopes.remove({halt.scope: halt.value})
            if action == BUCKET_LOOKUP:
                self.may_read_buckets = False
        elif _is_suspicious(action, halt):
            self.suspected_scopes.suspect(halt.scope, halt.value)

    async def _warn_of_endpoint(self, host: str, outcome: Outcome) -> None:
        what = f"is failing ({describe_answer(outcome)})"
        if outcome.http_status is None:
            what = f"cannot be reached ({outcome.message})"
        assumed = ""
        if outcome.code.effect is Effect.MAYBE:
            assumed = "It is assumed that each of these requests may have begun its export. "
        await self._warnings.warn(
            _failing_key(host),
            f"{host} {what}; sending one request at a time until it answers. {assumed}"
            f"{outcome.code.remedy}",
        )

    async def _clear_warning_of_endpoint(self, host: str) -> None:
        if await self._warnings.clear(_failing_key(host)):
            self._notify(f"{host} answers again.")

    def _scopes(self, host: str, scope_values: Mapping[Scope, str]) -> Mapping[Scope, str]:
        """Return the value of every scope of a request, as a halt names it."""
        of_account = dict.fromkeys(WHOLE_ACCOUNT, self._profile)
        return {**of_account, Scope.ENDPOINT: host, **scope_values}

    def _halt_for(self, outcome: Outcome, scopes: Mapping[Scope, str]) -> Halt:
        scope, message = outcome.code.scope or Scope.ACCOUNT, outcome.message
        if scope is Scope.CLOCK:
            message += f" Signatures with any known time are refused: {self._clock.describe()}."
        return Halt(scope, scopes[scope], outcome.code.name, message, outcome.code.remedy)

    async def _has_newer(self, refused: Credential) -> bool:
        """Renew refused credentials; return whether the request may be tried again.

        Requests that were refused together cause one renewal. Renewed credentials that are refused
        are not renewed again. If no credentials can be fetched, the account is halted here and the
        result is also true.
        """
        async with self._renewing:
            try:
                current = await self._credentials.current()
                if current == refused != self._renewed:
                    current = self._renewed = await self._credentials.renew()
            except CredentialError as error:
                self._halt_without_credentials(error)
                return True
            return current != refused

    def _halt_without_credentials(self, error: CredentialError) -> None:
        code = "Client.NoCredentials"
        self._halt(Halt(Scope.CREDENTIAL, self._profile, code, error.message, error.remedy))
        # Also if the scope is halted already: a halt caused by an export does not stop reading
        # buckets.
        self.may_read_buckets = False

    def _halt(self, halt: Halt) -> None:
        if self.halts.add(halt):
            self._warn(halt)

    def _warn(self, halt: Halt) -> None:
        label = "Given up for now" if halt.is_temporary else "Action required"
        what = f"Warning: no more exports are sent for {halt_cause(halt)}."
        self._notify(f"{what} {label}: {halt.remedy}")


def _is_suspicious(action: str, halt: Halt) -> bool:
    """Return whether to suspect a scope after a refusal that did not halt it.

    Such a refusal shows that the next ones may halt the scope. A denial does not: some images may
    be denied among many that are permitted.
    """
    is_denial = halt.code in MAY_CONCERN_ONE_IMAGE
    return action == EXPORT and halt.scope is not Scope.ENDPOINT and not is_denial


def _is_failure(action: str, outcome: Outcome) -> bool:
    """Return whether an outcome may open the circuit; DescribeImages alone may fail."""
    is_unclear = outcome.code.reaction is Reaction.RECONCILE and action == EXPORT
    return is_unclear or outcome.code.reaction is Reaction.PAUSE


def _failing_key(host: str) -> str:
    return f"failing {host}"
