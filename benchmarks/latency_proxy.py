"""``python -m benchmarks.latency_proxy PORT SECONDS FOLDER``: a proxy with TLS and latency.

It prints its port and its certificate, and then serves until it is terminated. Data is delayed by
the seconds in each direction; a new connection waits one more round trip, as for a TCP handshake.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

from benchmarks.simulator_process import SimulatorProcess
from tests.certificates import self_signed

_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


@contextmanager
def start_latency_proxy(
    cloud: SimulatorProcess, seconds: float, folder: Path
) -> Iterator[dict[str, str]]:
    """Run the proxy in front of a cloud; yield its clients' environment variables."""
    port = cloud.url.rpartition(":")[2]
    command = [sys.executable, "-m", "benchmarks.latency_proxy", port, str(seconds), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            listening, certificate = process.stdout.readline().split()
            url = f"https://127.0.0.1:{listening}"
            services = ("CVM", "COS", "STS")
            yield {
                **{f"ORCHESTRATOR_{name}_ENDPOINT": url for name in services},
                "SSL_CERT_FILE": certificate,
            }
        finally:
            process.terminate()


async def main(port: int, seconds: float, folder: Path) -> None:
    """Run two listeners: the outer one delays data, the inner one ends TLS."""
    context, certificate = self_signed(folder)
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=1024) as outer,
        await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=1024) as inner,
        anyio.create_task_group() as group,
    ):
        ends_tls = TLSListener(inner, context, standard_compatible=False)
        middle = inner.extra_attributes[SocketAttribute.local_port]()
        group.start_soon(ends_tls.serve, partial(_serve, port=port, seconds=0.0))
        group.start_soon(outer.serve, partial(_serve, port=middle, seconds=seconds))
        print(outer.extra_attributes[SocketAttribute.local_port](), certificate, flush=True)
        await anyio.sleep_forever()


async def _serve(client: ByteStream, *, port: int, seconds: float) -> None:
    with suppress(*_GONE):
        async with client:
            await anyio.sleep(2 * seconds)
            async with (
                await anyio.connect_tcp("127.0.0.1", port) as server,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(_forward, client, server, seconds)
                await _forward(server, client, seconds)
                tasks.cancel_scope.cancel()


async def _forward(source: ByteStream, target: ByteStream, seconds: float) -> None:
    """Forward each piece of data after this delay, until the source ends."""
    send, receive = anyio.create_memory_object_stream[tuple[float, bytes]](1000)

    async def deliver() -> None:
        async with receive:
            async for due, data in receive:
                await anyio.sleep_until(due)
                await target.send(data)

    with suppress(*_GONE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliver)
            async with send:
                async for data in source:
                    await send.send((anyio.current_time() + seconds, data))


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
