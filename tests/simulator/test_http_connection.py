"""The server side of HTTP/1.1, byte by byte over a socket pair."""

import asyncio
import socket
from collections.abc import Iterable

import anyio
import anyio.lowlevel
import pytest

from orchestrator.simulator.http_connection import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    Connection,
    Request,
    Response,
)

pytestmark = pytest.mark.anyio

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /p?q=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /p?q=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def exchange(packets: Iterable[bytes]) -> tuple[list[Request], bytes]:
    """Send packets, and return the requests that arrive and all bytes of the answers.

    Each request is answered with its own body. The client closes its side after the packets.
    """
    near, far = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=near)
    connection = Connection(*await asyncio.open_connection(sock=far, limit=MAX_HEAD_BYTES), 1)
    requests: list[Request] = []

    async def serve() -> None:
        more = True
        while more and (request := await connection.receive()) is not None:
            requests.append(request)
            more = await connection.send(Response(200, request.body))
        connection.close()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            for packet in packets:
                writer.write(packet)
                await writer.drain()
                await anyio.lowlevel.checkpoint()
            writer.write_eof()
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return requests, answer


async def test_two_requests_in_one_packet_are_both_answered() -> None:
    """Pipelined requests are answered one after another."""
    requests, answer = await exchange([GET % b"one" + POST + GET % b"two"])
    assert [(one.method, one.path) for one in requests] == [
        ("GET", "/one"),
        ("POST", "/p"),
        ("GET", "/two"),
    ]
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert b"Connection" not in answer


async def test_request_in_single_bytes_is_complete() -> None:
    """A request that arrives byte by byte is the same as one in a single packet."""
    whole = CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + POST
    requests, _ = await exchange(whole[n : n + 1] for n in range(len(whole)))
    assert [one.body for one in requests] == [b"hello", b"hello"]
    assert [one.query for one in requests] == ["q=1", "q=1"]


async def test_header_names_are_case_insensitive_and_values_stripped() -> None:
    """Header names are in lower case, and values have no blanks around them.

    The values of repeated headers are joined.
    """
    head = b"GET / HTTP/1.1\r\nHOST:a\r\nX-Name: \t one two \r\nx-name:\xfc\r\nX-Empty:\r\n\r\n"
    requests, _ = await exchange([head])
    assert requests[0].headers == {"host": "a", "x-name": "one two, ü", "x-empty": ""}


@pytest.mark.parametrize(
    "chunks",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"0003;name=value\r\nhel\r\n2 \r\nlo\r\n00\r\nTrailer: x\r\n\r\n",
    ],
)
async def test_chunked_body_is_joined(chunks: bytes) -> None:
    """Chunk extensions and trailers are ignored, and the connection stays in step."""
    requests, _ = await exchange([CHUNKED + chunks + GET % b"next"])
    assert [one.body for one in requests] == [b"hello", b""]


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, CLOSE"])
async def test_connection_close_is_answered_and_obeyed(value: bytes) -> None:
    """The answer repeats ``Connection: close``, and no later request is read."""
    head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: %s\r\n\r\n" % value
    requests, answer = await exchange([head + GET % b"next"])
    assert len(requests) == 1
    assert b"\r\nConnection: close\r\n" in answer


async def test_http_1_0_closes_the_connection() -> None:
    """HTTP/1.0 needs no Host, and has one request for each connection."""
    head = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    requests, answer = await exchange([head + GET % b"next"])
    assert len(requests) == 1
    assert b"\r\nConnection: close\r\n" in answer


async def test_head_is_answered_without_a_body() -> None:
    """The answer to HEAD has the length of the body, but not the body."""
    head = b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    requests, answer = await exchange([head])
    assert requests[0].body == b"hello"
    assert answer == b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n"


async def test_expect_continue_is_answered_before_the_body() -> None:
    """A client that waits for 100 gets it, and then the answer."""
    head, body = POST.split(b"\r\n\r\n")
    requests, answer = await exchange([head + b"\r\nExpect: 100-Continue\r\n\r\n", body])
    assert requests[0].body == b"hello"
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 9),
        CHUNKED + b"%x\r\n" % (MAX_BODY_BYTES + 9),
    ],
)
async def test_too_large_body_is_cut(head: bytes) -> None:
    """One byte more than the maximum is kept, and the rest is read and dropped."""
    end = b"\r\n0\r\n\r\n" if b"chunked" in head else b""
    requests, _ = await exchange([head, b"x" * (MAX_BODY_BYTES + 9), end + GET % b"next"])
    assert [len(one.body) for one in requests] == [MAX_BODY_BYTES + 1, 0]


@pytest.mark.parametrize(
    "malformed",
    [
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xfc HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nName : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nName: x\ny\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nName: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET /" + b"x" * MAX_HEAD_BYTES,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        CHUNKED.replace(b"Host", b"Content-Length: 5\r\nHost") + b"0\r\n\r\n",
        CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"1" * (MAX_HEAD_BYTES + 9),
    ],
)
async def test_malformed_request_is_answered_with_400(malformed: bytes) -> None:
    """The connection ends with a 400 answer after the valid requests before it."""
    requests, answer = await exchange([GET % b"first", malformed, GET % b"next"])
    assert [one.path for one in requests] == ["/first"]
    assert answer.count(b"HTTP/1.1 ") == 2
    assert b"\r\n\r\nHTTP/1.1 400 \r\n" in answer
    assert b"\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize("end", [10, 30, len(POST) - 1])
async def test_incomplete_request_is_not_answered(end: int) -> None:
    """A client that leaves in the middle of a request gets no answer."""
    assert await exchange([POST[:end]]) == ([], b"")


async def test_incomplete_chunk_is_not_answered() -> None:
    """A client that leaves in the middle of a chunk gets no answer."""
    assert await exchange([CHUNKED + b"5\r\nhel"]) == ([], b"")
