"""What happens on the way back to the client."""

from orchestrator.simulator.http_connection import Connection, Response
from orchestrator.simulator.settings import Fault

_HTML = (("Content-Type", "text/html"),)
_PAGE = b"<html><head><title>%d</title></head><body><h1>%d</h1></body></html>\n"


def name_of(fault: Fault) -> str:
    """A fault's name in the ledger."""
    return f"{fault.kind}-after" if fault.after else fault.kind


def reaches(fault: Fault | None) -> bool:
    """Whether the service processes the request."""
    return fault is None or fault.after or fault.kind == "half"


def disguise(fault: Fault | None, response: Response | None) -> Response | None:
    """What is sent in place of an answer; ``None`` is nothing."""
    match fault.kind if fault else None:
        case "reset" | "hang":
            return None
        case "gateway":
            assert fault is not None
            return Response(fault.status, _PAGE % (fault.status, fault.status), _HTML)
        case "html":
            return Response(200, _PAGE % (200, 200), _HTML)
        case "bare":
            return Response(200, b'{"message": "ok"}', (("Content-Type", "application/json"),))
    return response


async def deliver(connection: Connection, fault: Fault | None, response: Response | None) -> bool:
    """Sends what is left of an answer; whether the connection can take another request."""
    if response is None:
        assert fault is not None
        if fault.kind == "hang":
            await connection.hang()
        else:
            connection.reset()
        return False
    if fault is not None and fault.kind == "half":
        await connection.send_half(response)
        return False
    return await connection.send(response)
