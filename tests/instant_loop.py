"""An event loop in which waiting takes no time: its clock jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_STEP = 1e-9


class _JumpingSelector(selectors.DefaultSelector):
    """Moves the clock forward where another selector would sleep."""

    elapsed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready now, after moving the clock forward by the time-out."""
        # the step also moves the clock of a loop that never waits
        self.elapsed += (timeout or 0.0) + _STEP
        return super().select(0)


class _InstantLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the seconds waited since the start."""
        return self._jumping.elapsed


def in_no_time(work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run work that waits for nothing but time."""

    async def main() -> _Result:
        return await work()

    with asyncio.Runner(loop_factory=_InstantLoop) as runner:
        return runner.run(main())
