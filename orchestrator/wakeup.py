"""Word that something has changed, for every loop of the process that waits."""

import anyio


class Wakeup:
    """A bell that wakes all who wait, and is then new again."""

    def __init__(self) -> None:
        self._bell = anyio.Event()

    def notify(self) -> None:
        """Wakes everyone who waits."""
        self._bell.set()
        self._bell = anyio.Event()

    async def wait(self, seconds: float) -> None:
        """Returns when there is news, or after so many seconds: other processes ring no bell."""
        with anyio.move_on_after(seconds):
            await self._bell.wait()
