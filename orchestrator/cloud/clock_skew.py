"""The difference between a server's clock and this machine's, learned from Date headers."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from orchestrator.clock import Clock

TOLERATED_DRIFT = timedelta(seconds=30)
"""How far a `ServerClock` may be ahead of its server."""

SIGNATURE_LIFETIME = timedelta(seconds=300) + TOLERATED_DRIFT
"""The vendor refuses a signature 300 s after its date: this long after a claim its request is
refused, whichever process still holds it."""


class ServerClock:
    """The clock of one service, as its Date headers tell it.

    Once it is known it is at most 30 s ahead of the server, so that a signature dated by it expires
    330 s later at the latest.

    Args:
        local: the machine's clock.

    Attributes:
        offset: the server's clock minus the machine's.
        is_known: whether the service itself has told its time.
    """

    def __init__(self, local: Clock) -> None:
        self.local = local
        self.offset = timedelta()
        self.is_known = False

    def now(self) -> datetime:
        """The present moment by the server's clock, aware."""
        return self.local.now() + self.offset

    def learn(self, date_header: str | None, at: datetime) -> timedelta | None:
        """Take in the Date header of a response that came at ``at`` by the machine's clock.

        Only of a response of the service itself: the clock of a proxy proves nothing. Differences
        below 30 s may be a slow response, and the vendor tolerates 300 s.

        Returns:
            The server's clock minus the machine's; ``None`` where the header tells no time.
        """
        said = http_date(date_header)
        if said is None:
            return None
        self.is_known = True
        measured = said - at
        if abs(measured - self.offset) > TOLERATED_DRIFT:
            self.offset = measured
        return measured


def http_date(header: str | None) -> datetime | None:
    """A Date or Last-Modified header as an aware moment; ``None`` where it tells none."""
    try:
        moment = parsedate_to_datetime(header or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
