"""What may leave now, and what the answers have taught: rate, outages and stops of one account."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress

import anyio

from orchestrator.cloud.credentials.base import Credential, CredentialSource
from orchestrator.errors import CredentialError
from orchestrator.limits.circuit_breaker import Outage
from orchestrator.limits.halted_scopes import Stops
from orchestrator.limits.quota_waits import QuotaWaits
from orchestrator.limits.rate_limiter import Lane, Pacer, RateKey, Slot
from orchestrator.model import Outcome, Reaction, Scope, Stop

EXPORT = "ExportImages"
DESCRIBE = "DescribeImages"

LOOK = "look into a bucket"

NO_KEYS = "Client.NoCredentials"

_DOUBTS = 5
"""Answers in a row that leave a request in doubt: then the endpoint itself is in trouble."""

_EXCUSED = 10
"""Lost answers in a row that cost a job nothing: it may be what is in trouble itself."""


class Traffic:
    """The traffic of one account to the vendor's endpoints.

    Args:
        tell: takes a sentence for the user, whenever something begins to hold up the work.
        quota_wait: seconds for which a quota other than the export cap is waited for.
    """

    def __init__(
        self,
        profile: str,
        pacer: Pacer,
        credentials: CredentialSource,
        tell: Callable[[str], None],
        *,
        quota_wait: float,
    ) -> None:
        self.stops = Stops()
        self.can_look = True
        """Whether buckets can be looked into, as far as the account is concerned."""
        self._profile = profile
        self._pacer = pacer
        self._credentials = credentials
        self._tell = tell
        self._outages: defaultdict[str, Outage] = defaultdict(Outage)
        self._doubts: Counter[str] = Counter()
        self._quotas = QuotaWaits(quota_wait, tell)
        self._renewing = anyio.Lock()
        self._forced: Credential | None = None
        """What the last renewal gave, until something is accepted with it."""

    async def turn(self, action: str, host: str) -> Lane:
        """Waits until the endpoint can be reached and slots may be free; whose they are."""
        await self._outages[host].passed()
        lane = self.lane(action, host)
        await lane.turn()
        return lane

    async def permit(self, action: str, host: str) -> Slot:
        """Waits until the endpoint can be reached and the rate allows one more request."""
        await self._outages[host].passed()
        return await self.lane(action, host).slot()

    def is_in_trouble(self, host: str) -> bool:
        """Whether one request at a time finds out if the endpoint works again."""
        return self._outages[host].present

    def lane(self, action: str, host: str) -> Lane:
        """The stream of requests for one action at an endpoint."""
        return self._pacer.lane(RateKey(action, host, self._profile))

    def answered(self, host: str) -> None:
        """Takes note that the endpoint works, whatever it said."""
        if self._outages[host].present:
            self._tell(f"{host} answers again.")
        self._outages[host].answered()
        self._doubts.pop(host, None)

    def excuses(self, host: str, waits: int) -> bool:
        """Whether a lost answer is the fault of the endpoint, which is in trouble, not the job's.

        Where nothing is left but what no endpoint can answer, it looks the same; so that such a
        job comes to its end, it is not excused for ever.

        Args:
            waits: how often in a row the job was put off, and that was not counted.
        """
        return self.is_in_trouble(host) and waits < _EXCUSED

    def unused(self, host: str) -> None:
        """Gives a permit back: there was nothing to send with it."""
        self._outages[host].unused()

    async def lift_stops(self) -> None:
        """Lets the next requests find out whether a person has mended what stopped them."""
        self.stops.lift()
        self.can_look = True
        self._quotas.clear()
        self._forced = None
        # what is wrong with the keys still, the next request tells
        with suppress(CredentialError):
            await self._credentials.renew()

    def end_quota_waits(self) -> None:
        """Stop the regions that have waited too long for a quota."""
        for stop in self._quotas.expired():
            if self.stops.begin(stop):
                self._tell(f"Stopped: {describe_stop(stop)}")

    async def credential(self) -> Credential | None:
        """The keys to sign with; ``None`` when they are gone, which stops the account."""
        try:
            return await self._credentials.current()
        except CredentialError as error:
            self._no_keys(error)
            return None

    async def heard(
        self,
        action: str,
        host: str,
        outcome: Outcome,
        *,
        places: Mapping[Scope, str],
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
                self.stops.accepted()
                self._quotas.record_acceptance(places[Scope.REGION])
                self._forced = None
            case Reaction.CAPACITY:
                self._quotas.record_refusal(places[Scope.REGION], outcome)
            case Reaction.REFRESH if await self._renewed(credential):
                pass
            case Reaction.STOP | Reaction.RESIGN | Reaction.REFRESH:
                stop = self._stop_for(host, outcome, places)
                if self.stops.hear(stop, outcome.code, job_id=job_id, asked_at=asked_at):
                    self._tell(f"Stopped: {describe_stop(stop)}")
                if action == LOOK and self.stops.has(stop):
                    self.can_look = False
            case _:
                pass

    def _reached(self, host: str, outcome: Outcome) -> None:
        """Whether the endpoint is in trouble: out of reach, or doubtful so many times in a row."""
        outage = self._outages[host]
        if outcome.code.reaction is Reaction.RECONCILE:
            self._doubts[host] += 1
            in_trouble = outage.present or self._doubts[host] >= _DOUBTS
        else:
            in_trouble = outcome.code.reaction is Reaction.PAUSE
        if in_trouble:
            if not outage.present:
                what = f"is in trouble ({outcome.code.name}, HTTP {outcome.http_status})"
                if outcome.http_status is None:
                    what = f"cannot be reached ({outcome.message})"
                self._tell(f"{host} {what}; one request at a time finds out when it answers.")
            outage.lost()
        elif outcome.http_status is not None and outcome.code.reaction is not Reaction.RECONCILE:
            self.answered(host)

    def _stop_for(self, host: str, outcome: Outcome, places: Mapping[Scope, str]) -> Stop:
        scope = outcome.code.scope or Scope.ACCOUNT
        everywhere = {scope: host if scope is Scope.ENDPOINT else self._profile}
        value = {**everywhere, **places}[scope]
        return Stop(scope, value, outcome.code.name, outcome.message, outcome.code.remedy)

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
        stop = Stop(Scope.CREDENTIAL, self._profile, NO_KEYS, error.message, error.remedy)
        if self.stops.begin(stop):
            self._tell(f"Stopped: {describe_stop(stop)}")
        # even where an export has met a stop of the same scope before
        self.can_look = False


def describe_stop(stop: Stop) -> str:
    """A stop as a sentence: what, why, and what to do."""
    what = f"{stop.scope} {stop.value or '(the default one)'}"
    said = f" ({stop.message})" if stop.message else ""
    return f"{what}: {stop.code}{said}. {stop.remedy}"
