"""An endpoint that cannot be reached: everyone waits, one request at a time finds out."""

import random

import anyio

from orchestrator.limits.backoff import backoff

_PATIENCE = 35.0
"""Seconds after which a prober that never reported back is replaced."""


class CircuitBreaker:
    """Whether one endpoint can be reached, as far as the last requests have shown."""

    def __init__(self) -> None:
        self._misses = 0
        self._probing = False
        self._next_probe = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the last request did not get through."""
        return self._misses > 0

    async def wait_until_admitted(self) -> None:
        """Waits while the endpoint is out of reach, unless the caller is the next prober."""
        while not self.admit():
            await anyio.sleep(min(self._next_probe - anyio.current_time(), 0.5))

    def admit(self) -> bool:
        """Whether the caller may pass; in an outage that makes it the next prober."""
        now = anyio.current_time()
        if self._misses and now < self._next_probe:
            return False
        if self._misses:
            self._probing = True
            self._next_probe = now + _PATIENCE
        return True

    def release(self) -> None:
        """Whoever was let through had nothing to send: the next may find out instead."""
        if self._probing:
            self._probing = False
            self._next_probe = anyio.current_time()

    def record_failure(self) -> None:
        """A request did not get through; those in the air with the first count as one with it."""
        if self._misses and not self._probing:
            return
        wait = backoff(self._misses, random.random(), longest=30.0)  # noqa: S311 - spreads load
        self._misses += 1
        self._probing = False
        self._next_probe = anyio.current_time() + wait.total_seconds()

    def record_success(self) -> None:
        """A request got an answer, whatever it said."""
        self._misses = 0
        self._probing = False
