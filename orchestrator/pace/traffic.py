"""What may leave now, and what the answers have taught: rate, outages and stops of one account."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime

import anyio

from orchestrator.cloud.credentials import Credential, CredentialSource
from orchestrator.errors import CredentialError
from orchestrator.model import Outcome, Reaction, Scope, Stop
from orchestrator.pace.outage import Outage
from orchestrator.pace.rate import Pacer, RateKey, Slot
from orchestrator.pace.stops import Stops

EXPORT = "ExportImages"
DESCRIBE = "DescribeImages"

LOOK = "look into a bucket"

NO_KEYS = "Client.NoCredentials"

_DOUBTS = 5
"""Answers in a row that leave a request in doubt: then the endpoint itself is in trouble."""


class Traffic:
    """The traffic of one account to the vendor's endpoints.

    Args:
        tell: takes a sentence for the user, whenever something begins to hold up the work.
    """

    def __init__(
        self,
        profile: str,
        pacer: Pacer,
        credentials: CredentialSource,
        tell: Callable[[str], None],
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
        self._renewing = anyio.Lock()

    async def permit(self, action: str, host: str) -> Slot:
        """Waits until the endpoint can be reached and the rate allows one more request."""
        await self._outages[host].passed()
        return await self._pacer.permit(RateKey(action, host, self._profile))

    def answered(self, host: str) -> None:
        """Takes note that the endpoint works, whatever it said."""
        if self._outages[host].present:
            self._tell(f"{host} answers again.")
        self._outages[host].answered()
        self._doubts.pop(host, None)

    def is_failing(self, host: str) -> bool:
        """Whether the endpoint is in trouble: then a lost answer is not the job's fault."""
        return self._outages[host].present

    def unused(self, host: str) -> None:
        """Gives a permit back: there was nothing to send with it."""
        self._outages[host].unused()

    def lift_stops(self) -> None:
        """Lets the next requests find out whether a person has mended what stopped them."""
        self.stops.lift()
        self.can_look = True

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
        asked_at: datetime,
        now: datetime,
        credential: Credential,
        job_id: int | None = None,
    ) -> None:
        """Learns from what came of a request.

        Args:
            action: what it asked for; a stop that a look meets ends the looking too.
            places: what a stop of region, bucket or role would hold up.
            asked_at: when the request was claimed; an answer to an older one teaches less.
        """
        key = RateKey(action, host, self._profile)
        self._reached(host, outcome)
        match outcome.code.reaction:
            case Reaction.ACCEPT:
                self._pacer.accepted(key)
                self.stops.accepted()
            case Reaction.SLOW:
                self._pacer.slow_down(key)
            case Reaction.STOP | Reaction.RESIGN | Reaction.REFRESH:
                stop = self._stop_for(host, outcome, places)
                code = outcome.code
                if self.stops.hear(stop, code, job_id=job_id, claimed_at=asked_at, now=now):
                    self._stopped(stop, looking=action == LOOK)
                elif outcome.code.reaction is Reaction.REFRESH:
                    await self._renew(credential)
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
                what = "cannot be reached" if outcome.http_status is None else "is in trouble"
                self._tell(f"{host} {what} ({outcome.message}); one request at a time.")
            outage.lost()
        elif outcome.http_status is not None and outcome.code.reaction is not Reaction.RECONCILE:
            self.answered(host)

    def _stop_for(self, host: str, outcome: Outcome, places: Mapping[Scope, str]) -> Stop:
        scope = outcome.code.scope or Scope.ACCOUNT
        everywhere = {scope: host if scope is Scope.ENDPOINT else self._profile}
        value = {**everywhere, **places}[scope]
        return Stop(scope, value, outcome.code.name, outcome.message, outcome.code.remedy)

    def _stopped(self, stop: Stop, *, looking: bool) -> None:
        self.can_look = self.can_look and not looking
        self._tell(f"Stopped: {describe_stop(stop)}")

    async def _renew(self, refused: Credential) -> None:
        """Renews the credentials once for all whose requests were refused with the same."""
        async with self._renewing:
            try:
                if await self._credentials.current() == refused:
                    await self._credentials.renew()
            except CredentialError as error:
                self._no_keys(error)

    def _no_keys(self, error: CredentialError) -> None:
        stop = Stop(Scope.CREDENTIAL, self._profile, NO_KEYS, error.message, error.remedy)
        if self.stops.begin(stop):
            self._stopped(stop, looking=True)


def describe_stop(stop: Stop) -> str:
    """A stop as a sentence: what, why, and what to do."""
    what = f"{stop.scope} {stop.value}".strip()
    said = f" ({stop.message})" if stop.message else ""
    return f"{what}: {stop.code}{said}. {stop.remedy}"
