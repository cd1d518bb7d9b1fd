"""Which service a request is for, and how it is processed.

The HTTP server uses this, and so does the in-memory transport of the benchmarks.
"""

from email.utils import formatdate
from typing import Protocol

from orchestrator.simulator import cos, cvm, faults, sts
from orchestrator.simulator.cloud import Call, Cloud
from orchestrator.simulator.http_connection import Request, Response
from orchestrator.simulator.settings import Fault


class Service(Protocol):
    """One of the vendor's services."""

    def identify(self, request: Request, connection: int) -> Call:
        """Read what a request asks for."""
        ...

    def answer(self, cloud: Cloud, call: Call) -> Response:
        """Perform the request, or refuse it."""
        ...


def service_for(request: Request) -> Service:
    """Return the service that a request is for."""
    if cos.accepts(request):
        return cos
    return sts if sts.accepts(request) else cvm


def process(cloud: Cloud, service: Service, call: Call, fault: Fault | None) -> Response | None:
    """Process a request, unless a fault prevents it, and return what is to be sent."""
    entry = call.entry
    entry.arrived, entry.monotonic = cloud.clocks.wall(), cloud.clocks.monotonic()
    cloud.exports.advance(cloud.now())
    answer = service.answer(cloud, call) if faults.is_processed(fault) else None
    response = faults.alter_response(fault, answer)
    entry.http_status = response.status if response else None
    entry.fault = faults.ledger_name(fault) if fault else None
    cloud.ledger.write(entry)
    date = formatdate(cloud.date(entry.service), usegmt=True)
    return response and response.with_header("Date", date)
