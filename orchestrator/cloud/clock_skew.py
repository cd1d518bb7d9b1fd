"""The difference between a server's clock and this machine's, learned from Date headers."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from orchestrator.clock import Clock

TOLERATED_DRIFT = timedelta(seconds=30)
"""How far a `ServerClock` may be ahead of its server."""

SIGNATURE_LIFETIME = timedelta(seconds=300) + TOLERATED_DRIFT
"""The vendor refuses a signature 300 s after its date: this long after a claim its request is
refused, whichever process still holds it. See `ServerClock` for why."""

_MIN_REFUSED = timedelta(seconds=298)
"""Minimum age at which a signature may have been refused for its date: the 300 s of the vendor,
less the fraction of a second that a Date header does not show, and some spare."""

_MAX_REQUEST = timedelta(seconds=60)
"""Maximum time from a signature to the answer of its request."""

_FIRST_YEAR, _LAST_YEAR = 2000, 2100
"""A server's time outside these years is an error of the server."""


class ServerClock:
    """The clock that dates the signatures of one service.

    Two clocks may show the server's time: this machine's, and the Date headers of the answers. Each
    can be wrong, because Date may come from a CDN. Signatures get the time of the earlier one, and
    that of the later one only after the server has refused the earlier.

    So a signature is dated at most 30 s ahead of the server, provided that one of the two clocks is
    right: while the earlier one is used, the right one is not behind it; once the server has
    refused it, the right one is the other. Therefore a signature expires within 330 s, also one
    that is dated by this machine's clock. A date that is too early shortens its life. A refused
    signature with such a date cannot become valid later.

    A refusal proves this only if it was meant for that date, and only while no clock is set:

    * It is believed only if, by the other clock, the signature was off by the 300 s that the vendor
      tolerates. A refusal between clocks that are closer is a passing error, after which the later
      one would date signatures ahead. Between clocks that are farther apart, such an error shows at
      once, because the date that it leads to is refused, too.
    * If the Date header of a host jumps, a clock was set: then no earlier refusal counts, and the
      earlier clock is used again.

    Args:
        local: this machine's clock.

    Attributes:
        offset: the time of signatures minus this machine's.
        last_offset: the time of the last Date header minus this machine's.
        host: the host that sent it.
        largest: the largest difference so far, by host.
        is_known: whether the service has sent its time.
        is_refused: whether the server has refused every time that is known.
    """

    def __init__(self, local: Clock) -> None:
        self.local = local
        self.offset = self.last_offset = timedelta()
        self.host = ""
        self.largest: dict[str, timedelta] = {}
        self.is_known = False
        self.is_refused = False
        self._refused: list[timedelta] = []
        """Offsets that the server has refused."""
        self._last_by_host: dict[str, timedelta] = {}
        """Offset by the last Date header of each host."""

    def now(self) -> datetime:
        """Return the time for a signature, aware."""
        return self.local.now() + self.offset

    def learn(self, date_header: str | None, host: str) -> None:
        """Learn from the Date header of a response that has just arrived.

        Pass only responses of the service itself: the clock of a proxy proves nothing. An invalid
        header is ignored.
        """
        server_time = parse_http_date(date_header)
        if server_time is None:
            return
        self.is_known = True
        measured = server_time - self.local.now()
        self.host, self.last_offset = host, measured
        self.largest[host] = max(self.largest.get(host, measured), measured, key=abs)
        if abs(measured - self._last_by_host.get(host, measured)) > TOLERATED_DRIFT:
            # a clock was set
            self._refused.clear()
            self.offset = timedelta()
        self._last_by_host[host] = measured
        # A smaller difference may be a slow response. The vendor tolerates 300 s.
        if measured < self.offset - TOLERATED_DRIFT and not self._was_refused(measured):
            self.offset = measured

    def record_refusal(self, signed_at: datetime) -> bool:
        """Record that a signature was refused for its date.

        Args:
            signed_at: the date of the signature.

        Returns:
            Whether to try another date.
        """
        age = self.now() - signed_at
        if not timedelta() <= age <= _MAX_REQUEST:
            return True  # the clock was set after that signature
        self._refused.append(self.offset)
        others = [
            one
            for one in (self.last_offset, timedelta())
            if not self._was_refused(one) and abs(one - self.offset) + age > _MIN_REFUSED
        ]
        self.is_refused = not others
        if others:
            self.offset = others[0]
        else:
            # begin again: the server's clock may be corrected
            self.offset = self._refused[0]
            self._refused.clear()
        return bool(others)

    def describe(self) -> str:
        """Return how the server's clock differs from this machine's.

        The text is a part of a sentence.
        """
        if not self.is_known:
            return "the server has sent no Date header"
        seconds = round(self.last_offset.total_seconds())
        difference = f"{abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'}"
        return f"the Date header of {self.host} is {difference} this machine's clock"

    def _was_refused(self, offset: timedelta) -> bool:
        return any(abs(offset - refused) <= TOLERATED_DRIFT for refused in self._refused)


def parse_http_date(header: str | None) -> datetime | None:
    """Return the time in a Date or Last-Modified header as an aware datetime.

    Return ``None`` if the header is missing or invalid.
    """
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
