"""The vendor's services, whichever way a request comes to them."""

from email.utils import formatdate
from typing import Protocol

from orchestrator.simulator import cos, cvm, faults
from orchestrator.simulator import sts as lent_keys
from orchestrator.simulator.cloud import Call, Cloud
from orchestrator.simulator.http_connection import Request, Response
from orchestrator.simulator.settings import Fault


class Service(Protocol):
    """One of them."""

    def identify(self, request: Request, connection: int) -> Call:
        """What a request wants."""
        ...

    def answer(self, cloud: Cloud, call: Call) -> Response:
        """Does it, or says why not."""
        ...


def service_for(request: Request) -> Service:
    """The service that a request is meant for."""
    if cos.is_meant(request):
        return cos
    return lent_keys if lent_keys.is_meant(request) else cvm


def process(cloud: Cloud, service: Service, call: Call, fault: Fault | None) -> Response | None:
    """Lets the service work, unless a fault keeps the request from it; what is to be sent."""
    entry = call.entry
    entry.arrived, entry.monotonic = cloud.clocks.wall(), cloud.clocks.monotonic()
    cloud.exports.advance(cloud.now())
    answer = service.answer(cloud, call) if faults.reaches(fault) else None
    response = faults.disguise(fault, answer)
    entry.http_status = response.status if response else None
    entry.fault = faults.name_of(fault) if fault else None
    cloud.ledger.write(entry)
    return response and response.with_header("Date", formatdate(cloud.now(), usegmt=True))
