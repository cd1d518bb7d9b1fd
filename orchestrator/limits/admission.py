"""What may leave now, and what the answers have taught: rate, outages and stops of one account."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress

import anyio

from orchestrator.cloud.credentials.base import Credential, CredentialSource
from orchestrator.errors import CredentialError
from orchestrator.limits.circuit_breaker import CircuitBreaker
from orchestrator.limits.halted_scopes import HaltedScopes
from orchestrator.limits.quota_waits import QuotaWaits
from orchestrator.limits.rate_limiter import Permit, RateKey, RateLimiter, RateLimiters
from orchestrator.model import Halt, Outcome, Reaction, Scope

EXPORT = "ExportImages"
DESCRIBE = "DescribeImages"

LOOK = "look into a bucket"

NO_KEYS = "Client.NoCredentials"

_DOUBTS = 5
"""Answers in a row that leave a request in doubt: then the endpoint itself is in trouble."""

_EXCUSED = 10
"""Lost answers in a row that cost a job nothing: it may be what is in trouble itself."""


class Admission:
    """The traffic of one account to the vendor's endpoints.

    Args:
        tell: takes a sentence for the user, whenever something begins to hold up the work.
        quota_wait: seconds for which a quota other than the export cap is waited for.
    """

    def __init__(
        self,
        profile: str,
        rate_limiters: RateLimiters,
        credentials: CredentialSource,
        notify: Callable[[str], None],
        *,
        quota_wait: float,
    ) -> None:
        self.halts = HaltedScopes()
        self.may_read_buckets = True
        """Whether buckets can be looked into, as far as the account is concerned."""
        self._profile = profile
        self._rate_limiters = rate_limiters
        self._credentials = credentials
        self._notify = notify
        self._breakers: defaultdict[str, CircuitBreaker] = defaultdict(CircuitBreaker)
        self._doubts: Counter[str] = Counter()
        self._quotas = QuotaWaits(quota_wait, notify)
        self._renewing = anyio.Lock()
        self._forced: Credential | None = None
        """What the last renewal gave, until something is accepted with it."""

    async def wait_for_turn(self, action: str, host: str) -> RateLimiter:
        """Waits until the endpoint can be reached and slots may be free; whose they are."""
        await self._breakers[host].wait_until_admitted()
        rate_limiter = self.rate_limiter(action, host)
        await rate_limiter.wait_for_turn()
        return rate_limiter

    async def acquire_permit(self, action: str, host: str) -> Permit:
        """Waits until the endpoint can be reached and the rate allows one more request."""
        await self._breakers[host].wait_until_admitted()
        return await self.rate_limiter(action, host).acquire()

    def is_endpoint_failing(self, host: str) -> bool:
        """Whether one request at a time finds out if the endpoint works again."""
        return self._breakers[host].is_open

    def rate_limiter(self, action: str, host: str) -> RateLimiter:
        """The stream of requests for one action at an endpoint."""
        return self._rate_limiters.for_key(RateKey(action, host, self._profile))

    def record_response(self, host: str) -> None:
        """Takes note that the endpoint works, whatever it said."""
        if self._breakers[host].is_open:
            self._notify(f"{host} answers again.")
        self._breakers[host].record_success()
        self._doubts.pop(host, None)

    def excuses_lost_answer(self, host: str, deferrals: int) -> bool:
        """Whether a lost answer is the fault of the endpoint, which is in trouble, not the job's.

        Where nothing is left but what no endpoint can answer, it looks the same; so that such a
        job comes to its end, it is not excused for ever.

        Args:
            waits: how often in a row the job was put off, and that was not counted.
        """
        return self.is_endpoint_failing(host) and deferrals < _EXCUSED

    def release(self, host: str) -> None:
        """Gives a permit back: there was nothing to send with it."""
        self._breakers[host].release()

    async def clear_halts(self) -> None:
        """Lets the next requests find out whether a person has mended what stopped them."""
        self.halts.clear()
        self.may_read_buckets = True
        self._quotas.clear()
        self._forced = None
        # what is wrong with the keys still, the next request tells
        with suppress(CredentialError):
            await self._credentials.renew()

    def halt_expired_quota_waits(self) -> None:
        """Stop the regions that have waited too long for a quota."""
        for halt in self._quotas.expired():
            if self.halts.add(halt):
                self._notify(f"Stopped: {describe_halt(halt)}")

    async def credential(self) -> Credential | None:
        """The keys to sign with; ``None`` when they are gone, which stops the account."""
        try:
            return await self._credentials.current()
        except CredentialError as error:
            self._no_keys(error)
            return None

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
        """Learns from what came of a request.

        Args:
            action: what it asked for; a stop that a look meets ends the looking too.
            places: what a stop of region, bucket or role would hold up.
            asked_at: when the request was claimed, on the event loop's clock; an answer to an
                older one teaches less.
        """
        self._reached(host, outcome)
        match outcome.code.reaction:
            case Reaction.ACCEPT:
                self.halts.record_acceptance()
                self._quotas.record_acceptance(scope_values[Scope.REGION])
                self._forced = None
            case Reaction.CAPACITY:
                self._quotas.record_refusal(scope_values[Scope.REGION], outcome)
            case Reaction.REFRESH if await self._renewed(credential):
                pass
            case Reaction.STOP | Reaction.RESIGN | Reaction.REFRESH:
                halt = self._halt_for(host, outcome, scope_values)
                if self.halts.record_refusal(halt, outcome.code, job_id=job_id, asked_at=asked_at):
                    self._notify(f"Stopped: {describe_halt(halt)}")
                if action == LOOK and self.halts.contains(halt):
                    self.may_read_buckets = False
            case _:
                pass

    def _reached(self, host: str, outcome: Outcome) -> None:
        """Whether the endpoint is in trouble: out of reach, or doubtful so many times in a row."""
        breaker = self._breakers[host]
        if outcome.code.reaction is Reaction.RECONCILE:
            self._doubts[host] += 1
            in_trouble = breaker.is_open or self._doubts[host] >= _DOUBTS
        else:
            in_trouble = outcome.code.reaction is Reaction.PAUSE
        if in_trouble:
            if not breaker.is_open:
                what = f"is in trouble ({outcome.code.name}, HTTP {outcome.http_status})"
                if outcome.http_status is None:
                    what = f"cannot be reached ({outcome.message})"
                self._notify(f"{host} {what}; one request at a time finds out when it answers.")
            breaker.record_failure()
        elif outcome.http_status is not None and outcome.code.reaction is not Reaction.RECONCILE:
            self.record_response(host)

    def _halt_for(self, host: str, outcome: Outcome, scope_values: Mapping[Scope, str]) -> Halt:
        scope = outcome.code.scope or Scope.ACCOUNT
        everywhere = {scope: host if scope is Scope.ENDPOINT else self._profile}
        value = {**everywhere, **scope_values}[scope]
        return Halt(scope, value, outcome.code.name, outcome.message, outcome.code.remedy)

    async def _renewed(self, refused: Credential) -> bool:
        """Whether others are in force by now than those refused: renewed once, for all at once."""
        async with self._renewing:
            try:
                in_force = await self._credentials.current()
                if in_force == refused != self._forced:
                    in_force = self._forced = await self._credentials.renew()
            except CredentialError as error:
                self._no_keys(error)
                return True
            return in_force != refused

    def _no_keys(self, error: CredentialError) -> None:
        halt = Halt(Scope.CREDENTIAL, self._profile, NO_KEYS, error.message, error.remedy)
        if self.halts.add(halt):
            self._notify(f"Stopped: {describe_halt(halt)}")
        # even where an export has met a stop of the same scope before
        self.may_read_buckets = False


def describe_halt(halt: Halt) -> str:
    """A stop as a sentence: what, why, and what to do."""
    what = f"{halt.scope} {halt.value or '(the default one)'}"
    said = f" ({halt.message})" if halt.message else ""
    return f"{what}: {halt.code}{said}. {halt.remedy}"
