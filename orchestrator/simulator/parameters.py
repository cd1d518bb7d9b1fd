"""The input parameters of an action: read from JSON or a query, and checked strictly."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from orchestrator.simulator.error_messages import ApiError
from orchestrator.simulator.http_connection import Request

Check = Callable[[object], bool]
"""Returns whether a value has the type of its parameter."""
Parameters = Mapping[str, Any]
"""Input parameters by name."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def is_text(value: object) -> bool:
    """Return whether a value is a string that UTF-8 can encode."""
    return isinstance(value, str) and not _LONE_SURROGATE.search(value)


def is_flag(value: object) -> bool:
    """Return whether a value is a Boolean."""
    return isinstance(value, bool)


def is_number(value: object) -> bool:
    """Return whether a value is an integer of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_texts(value: object) -> bool:
    """Return whether a value is a list of strings."""
    return isinstance(value, list) and all(map(is_text, value))


def is_filters(value: object) -> bool:
    """Return whether a value is a list of filters, each with a name and its values."""
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and one.keys() == {"Name", "Values"}
        and is_text(one["Name"])
        and is_texts(one["Values"])
        for one in value
    )


def read(request: Request) -> Parameters:
    """Return the parameters of a request; null is the same as an absent parameter.

    Raises:
        ApiError: the vendor does not accept this form of request.
    """
    if request.method == "GET":
        return _unflatten(parse_qsl(request.query, keep_blank_values=True))
    if request.method != "POST":
        raise ApiError("UnsupportedProtocol")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError("UnsupportedProtocol", "The body must be sent as application/json.")
    try:
        body = json.loads(request.body or b"{}")
    except (ValueError, RecursionError):
        raise ApiError("InvalidParameter", "The body is not a JSON document in UTF-8.") from None
    if not isinstance(body, dict):
        raise ApiError("InvalidParameter", "The body must be a JSON object.")
    return {name: value for name, value in body.items() if value is not None}


def check(parameters: Parameters, known: Mapping[str, Check]) -> None:
    """Check the parameters against those that an action knows.

    Raises:
        ApiError: a parameter is unknown, or has the wrong type.
    """
    for name, value in parameters.items():
        if name not in known:
            raise ApiError("UnknownParameter", f"The parameter `{name}` is not known.")
        if not known[name](value):
            raise ApiError("InvalidParameterValue", f"The parameter `{name}` has a wrong type.")


def texts(parameters: Parameters, name: str) -> tuple[str, ...]:
    """Return a parameter that is a list of strings, as a tuple.

    The tuple is empty if the parameter is anything else. The ledger needs the strings before the
    parameters are checked.
    """
    value = parameters.get(name)
    return tuple(value) if isinstance(value, list) and is_texts(value) else ()


def _unflatten(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the nested values that names such as ``ImageIds.0`` stand for."""
    tree: dict[str, Any] = {}
    for name, text in pairs:
        *path, last = name.split(".")
        branch = tree
        for step in path:
            branch = branch.setdefault(step, {})
            if not isinstance(branch, dict):
                raise ApiError("InvalidParameter", f"The parameter `{name}` contradicts another.")
        branch[last] = text if path else _scalar(text)
    return {name: _listed(value) for name, value in tree.items()}


def _scalar(text: str) -> object:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    return int(text) if re.fullmatch(r"\d{1,18}", text) else text


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if all(name.isdecimal() for name in value):
        return [_listed(value[name]) for name in sorted(value, key=int)]
    return {name: _listed(item) for name, item in value.items()}
