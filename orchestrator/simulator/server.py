"""The HTTP server of the simulator: one port on loopback for all services."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import anyio

from orchestrator.simulator import control_api, faults
from orchestrator.simulator.cloud import Cloud
from orchestrator.simulator.export_tasks import Export
from orchestrator.simulator.http_connection import MAX_HEAD_BYTES, Connection, Request
from orchestrator.simulator.images import Image
from orchestrator.simulator.ledger import Entry
from orchestrator.simulator.routing import process, service_for
from orchestrator.simulator.settings import Fault, Key, Settings, SimulatorOptions

_HOST = "127.0.0.1"


class Simulator:
    """The vendor's cloud on loopback; it runs within the ``async with`` block."""

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self.options = options or SimulatorOptions()
        self.port = self.options.port
        self._cloud = Cloud(self.options)
        self._numbers = itertools.count(1)
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """Base URL of all services."""
        return f"http://{_HOST}:{self.port}"

    @property
    def settings(self) -> Settings:
        """The current settings."""
        return self._cloud.settings

    @property
    def images(self) -> Sequence[Image]:
        """The generated catalogue, as it was at the start."""
        return self._cloud.images.made()

    @property
    def ledger(self) -> Sequence[Entry]:
        """Every request so far."""
        return self._cloud.ledger.entries

    @property
    def exports(self) -> Sequence[Export]:
        """Every export so far."""
        return self._cloud.exports.all

    @property
    def temporary_keys(self) -> Sequence[Key]:
        """Every temporary key issued so far."""
        return self._cloud.temporary_keys

    def change(self, **settings: Any) -> None:
        """Change settings, named as in `Settings`; the others stay."""
        self._cloud.change(**settings)

    def set_faults(self, *given: Fault) -> None:
        """Replace all faults; without arguments there are none."""
        self.change(faults=given)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(self._cloud.ledger)
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            server = await asyncio.start_server(
                self._accept, _HOST, self.port, limit=MAX_HEAD_BYTES, backlog=1024
            )
            stack.callback(self._tasks.cancel_scope.cancel)
            stack.callback(server.close)
            self.port = server.sockets[0].getsockname()[1]
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # the error is not passed on: the task group would wrap it in an exception group
        await self._stack.aclose()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.start_soon(
            self._serve_connection, Connection(reader, writer, next(self._numbers))
        )

    async def _serve_connection(self, connection: Connection) -> None:
        """Answer the requests of one connection, one after another."""
        try:
            more = True
            while more and (request := await connection.receive()) is not None:
                more = await self._answer(connection, request)
        except OSError:
            pass  # the client closed or reset the connection
        finally:
            connection.close()

    async def _answer(self, connection: Connection, request: Request) -> bool:
        """Answer one request; return whether the connection stays open."""
        if request.path.startswith(control_api.ROOT):
            return await connection.send(control_api.answer(self._cloud, request))
        service = service_for(request)
        call = service.identify(request, connection.number)
        fault, delay = self._cloud.fault(call.entry), self._cloud.latency(call.entry)
        # half of the delay before and half after, as on a slow network
        await anyio.sleep(delay / 2)
        response = process(self._cloud, service, call, fault)
        await anyio.sleep(delay / 2)
        return await faults.send_response(connection, fault, response)


async def serve(options: SimulatorOptions, ready: Callable[[Simulator], None]) -> None:
    """Run a simulator until it is cancelled.

    Args:
        ready: called once, when the simulator accepts requests.
    """
    async with Simulator(options) as simulator:
        ready(simulator)
        await anyio.sleep_forever()
