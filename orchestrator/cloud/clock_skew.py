"""The difference between a server's clock and this machine's, learned from Date headers."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from orchestrator.clock import Clock

TOLERATED_DRIFT = timedelta(seconds=30)
"""How far a `ServerClock` may be ahead of its server."""

SIGNATURE_LIFETIME = timedelta(seconds=300) + TOLERATED_DRIFT
"""The vendor refuses a signature 300 s after its date: this long after a claim its request is
refused, whichever process still holds it."""

_FIRST_YEAR, _LAST_YEAR = 2000, 2100
"""A server's time outside these years is an error of the server."""


class ServerClock:
    """The clock of one service.

    Once it is known, it is at most 30 s ahead of the server. The vendor accepts a signature for
    300 s, so one that is dated by this clock expires within 330 s.

    Args:
        local: this machine's clock.

    Attributes:
        offset: the server's clock minus this machine's.
        is_known: whether the service has sent its time.
    """

    def __init__(self, local: Clock) -> None:
        self.local = local
        self.offset = timedelta()
        self.is_known = False

    def now(self) -> datetime:
        """Return the time by the server's clock, aware."""
        return self.local.now() + self.offset

    def learn(self, date_header: str | None) -> None:
        """Set the clock by the Date header of a response that has just arrived.

        Pass only responses of the service itself: the clock of a proxy proves nothing. An invalid
        header is ignored.
        """
        server_time = parse_http_date(date_header)
        if server_time is None:
            return
        self.is_known = True
        measured = server_time - self.local.now()
        # A smaller difference may be a slow response. The vendor tolerates 300 s.
        if abs(measured - self.offset) > TOLERATED_DRIFT:
            self.offset = measured


def parse_http_date(header: str | None) -> datetime | None:
    """Return the time in a Date or Last-Modified header, aware; ``None`` if it is invalid."""
    return parse_time(parsedate_to_datetime, header or "")


def parse_time(parse: Callable[[str], datetime], text: str) -> datetime | None:
    """Return a time that a server sent, aware; ``None`` if it is invalid.

    A year that is far off counts as invalid: calculations with such a time could overflow.
    """
    try:
        moment = parse(text)
    except (ValueError, OverflowError):
        return None
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
