"""A circuit breaker: while an endpoint fails, one request at a time tests whether it works."""

import random

import anyio

from orchestrator.limits.backoff import backoff

PROBE_SPARE = 5.0
"""Seconds beyond the timeout of a request after which a probe without a result is replaced."""

_POLL = 0.5
"""Seconds between two checks of the state while a caller waits."""


class CircuitBreaker:
    """The state of one endpoint or bucket, as the last requests have shown it.

    Args:
        request_timeout: longest time of a request in seconds.
    """

    def __init__(self, request_timeout: float) -> None:
        self._probe_timeout = request_timeout + PROBE_SPARE
        self._failures = 0
        self._probes = 0
        self._is_probing = False
        self._next_probe = 0.0
        self.is_open = False
        """Whether only probes are admitted."""

    async def wait_until_admitted(self) -> None:
        """Wait until a request may be sent."""
        while not self.admit():
            await anyio.sleep(min(self._next_probe - anyio.current_time(), _POLL))

    def admit(self) -> bool:
        """Return whether a request may be sent.

        If the circuit is open, the admitted request is the next probe.
        """
        if not self.is_open:
            return True
        if anyio.current_time() < self._next_probe:
            return False
        self._is_probing = True
        self._next_probe = anyio.current_time() + self._probe_timeout
        return True

    def release(self) -> None:
        """Give back an unused admission, so that another request may be the probe."""
        if self._is_probing:
            self._is_probing = False
            self._next_probe = anyio.current_time()

    def record_failure(self, *, tolerated: int = 0, longest: float = 30.0) -> bool:
        """Record a failed request; return whether it opened the circuit.

        Args:
            tolerated: number of failures in a row that do not open it.
            longest: maximum seconds until the next probe.
        """
        self._failures += 1
        was_open = self.is_open
        # requests that were in flight when the circuit opened give no new information
        if self._is_probing if was_open else self._failures > tolerated:
            wait = backoff(self._probes, random.random(), longest=longest)  # noqa: S311 - spreads load
            self._probes += 1
            self._is_probing = False
            self._next_probe = anyio.current_time() + wait.total_seconds()
            self.is_open = True
        return self.is_open and not was_open

    def record_success(self) -> bool:
        """Record a request that was answered; return whether it closed the circuit."""
        was_open = self.is_open
        self._failures = self._probes = 0
        self._is_probing = self.is_open = False
        return was_open
