"""Simulated faults: which request one applies to, and what it does to the answer."""

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from orchestrator.simulator.http_connection import Connection, Response
from orchestrator.simulator.settings import Fault, Rule

_HTML = (("Content-Type", "text/html"),)
_LEFT_OUT = {"no-task-id": "TaskId", "no-cos-paths": "CosPaths"}
_PAGE = b"<html><head><title>%d</title></head><body><h1>%d</h1></body></html>\n"
_ANSWERS = {
    "html": Response(200, _PAGE % (200, 200), _HTML),
    "bare": Response(200, b'{"message": "ok"}', (("Content-Type", "application/json"),)),
    "redirect": Response(302, headers=(("Location", "https://login.invalid/"),)),
}

R = TypeVar("R", bound=Rule)


@dataclass(slots=True)
class _CountedRule(Generic[R]):
    """A rule and how often it can still be used; ``None`` is without limit."""

    rule: R
    left: int | None


class Rules(Generic[R]):
    """Rules of one kind, with a count of their uses."""

    def __init__(self, rules: Iterable[R], chance: random.Random) -> None:
        self._rules = [_CountedRule(rule, rule.times) for rule in rules]
        self._chance = chance

    def select(
        self, images: tuple[str, ...], fits: Callable[[R], bool] = lambda _: True
    ) -> R | None:
        """Return the first rule for a request with these images, and count its use."""
        for counted in self._rules:
            if counted.left != 0 and fits(counted.rule) and self._applies(counted.rule, images):
                if counted.left is not None:
                    counted.left -= 1
                return counted.rule
        return None

    def _applies(self, rule: R, images: tuple[str, ...]) -> bool:
        named = not rule.images or not set(rule.images).isdisjoint(images)
        return named and (rule.chance >= 1 or self._chance.random() < rule.chance)


def ledger_name(fault: Fault) -> str:
    """Return the name of a fault in the ledger."""
    return f"{fault.kind}-after" if fault.after else fault.kind


def is_processed(fault: Fault | None) -> bool:
    """Return whether the service still processes the request."""
    return fault is None or fault.after or fault.kind in {"half", *_LEFT_OUT}


def alter_response(fault: Fault | None, response: Response | None) -> Response | None:
    """Return what is sent in place of the answer; None if nothing is sent."""
    if fault is None:
        return response
    if fault.kind in {"reset", "hang"}:
        return None
    if fault.kind == "gateway":
        return Response(fault.status, _PAGE % (fault.status, fault.status), _HTML)
    if fault.kind in _LEFT_OUT:
        return _left_out(response, _LEFT_OUT[fault.kind])
    return _ANSWERS.get(fault.kind, response)


def _left_out(response: Response | None, name: str) -> Response:
    """Return an answer of CVM without a member of ``Response``."""
    assert response is not None, "the request has been processed"
    document = json.loads(response.body)
    document["Response"].pop(name, None)
    return replace(response, body=json.dumps(document).encode())


async def send_response(
    connection: Connection, fault: Fault | None, response: Response | None
) -> bool:
    """Send the response, or the part of it that the fault allows.

    Return whether the connection stays open.
    """
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
