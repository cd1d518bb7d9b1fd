"""An event loop in which waiting takes no time: its clock jumps to whatever is due next."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_MOMENT = 1e-9


class _JumpingSelector(selectors.DefaultSelector):
    """Puts the clock forward where another selector would sleep."""

    elapsed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """What is ready now; the time until then has passed, and a moment that looking takes."""
        self.elapsed += (timeout or 0.0) + _MOMENT
        return super().select(0)


class _InstantLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds since the start, as far as anybody has waited."""
        return self._jumping.elapsed


def in_no_time(work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Runs some work that waits for nothing but time."""

    async def main() -> _Result:
        return await work()

    with asyncio.Runner(loop_factory=_InstantLoop) as runner:
        return runner.run(main())
