"""A signal inside the process: something has changed, so every waiting loop should check again."""

import anyio


class Wakeup:
    """An event that resets itself after it has woken all waiting tasks."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def notify(self) -> None:
        """Wake all tasks that wait now."""
        self._event.set()
        self._event = anyio.Event()

    async def wait(self, seconds: float) -> None:
        """Wait for the next signal, at most so many seconds.

        Changes made by other processes give no signal, so every caller must also poll.
        """
        with anyio.move_on_after(seconds):
            await self._event.wait()
