"""What may leave now, and what the answers have taught: rate, outages and stops of one account."""

from collections import defaultdict
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

NO_KEYS = "Client.NoCredentials"


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
        self._profile = profile
        self._pacer = pacer
        self._credentials = credentials
        self._tell = tell
        self._outages: defaultdict[str, Outage] = defaultdict(Outage)
        self._renewing = anyio.Lock()

    async def permit(self, action: str, host: str) -> Slot:
        """Waits until the endpoint can be reached and the rate allows one more request."""
        await self._outages[host].passed()
        return await self._pacer.permit(RateKey(action, host, self._profile))

    def answered(self, host: str) -> None:
        """Takes note that the endpoint can be reached, whatever it said."""
        if self._outages[host].present:
            self._tell(f"{host} can be reached again.")
        self._outages[host].answered()

    def unused(self, host: str) -> None:
        """Gives a permit back: there was nothing to send with it."""
        self._outages[host].unused()

    @property
    def has_keys(self) -> bool:
        """Whether there are keys to sign with: without any, no bucket can be looked into either."""
        return all(stop.code != NO_KEYS for stop in self.stops.active)

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
    ) -> None:
        """Learns from what came of a request.

        Args:
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
            case Reaction.REFRESH:
                self._stop(host, outcome, places, asked_at, now)
                await self._renew(credential)
            case Reaction.STOP | Reaction.RESIGN:
                self._stop(host, outcome, places, asked_at, now)
            case _:
                pass

    def _reached(self, host: str, outcome: Outcome) -> None:
        outage = self._outages[host]
        if outcome.code.reaction is Reaction.PAUSE:
            if not outage.present:
                self._tell(f"{host} cannot be reached ({outcome.message}); trying again and again.")
            outage.lost()
        elif outcome.http_status is not None:
            self.answered(host)
        elif outage.present:
            outage.lost()

    def _stop(
        self,
        host: str,
        outcome: Outcome,
        places: Mapping[Scope, str],
        asked_at: datetime,
        now: datetime,
    ) -> None:
        scope = outcome.code.scope or Scope.ACCOUNT
        everywhere = {scope: host if scope is Scope.ENDPOINT else self._profile}
        value = {**everywhere, **places}[scope]
        stop = Stop(scope, value, outcome.code.name, outcome.message, outcome.code.remedy)
        if self.stops.hear(stop, outcome.code, claimed_at=asked_at, now=now):
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
        if stop not in self.stops.active:
            self.stops.active.append(stop)
            self._tell(f"Stopped: {describe_stop(stop)}")


def describe_stop(stop: Stop) -> str:
    """A stop as a sentence: what, why, and what to do."""
    what = f"{stop.scope} {stop.value}".strip()
    said = f" ({stop.message})" if stop.message else ""
    return f"{what}: {stop.code}{said}. {stop.remedy}"
