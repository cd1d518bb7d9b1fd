"""The input parameters of an action: read from JSON or a query, and checked strictly."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from orchestrator.simulator.error_messages import ApiError
from orchestrator.simulator.http_connection import Request

Check = Callable[[object], bool]
"""Whether a value has the type of its parameter."""
Parameters = Mapping[str, Any]
"""Input parameters by name."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def is_text(value: object) -> bool:
    """A string that UTF-8 can hold."""
    return isinstance(value, str) and not _LONE_SURROGATE.search(value)


def is_flag(value: object) -> bool:
    """A truth value."""
    return isinstance(value, bool)


def is_number(value: object) -> bool:
    """A whole number that is not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_texts(value: object) -> bool:
    """A list of strings."""
    return isinstance(value, list) and all(map(is_text, value))


def is_filters(value: object) -> bool:
    """A list of filters, each with a name and its values."""
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and one.keys() == {"Name", "Values"}
        and is_text(one["Name"])
        and is_texts(one["Values"])
        for one in value
    )


def read(request: Request) -> Parameters:
    """The parameters as sent; null is the same as nothing.

    Raises:
        ApiError: the request has no form that the vendor takes.
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
        raise ApiError("InvalidParameter", "The body is no JSON document in UTF-8.") from None
    if not isinstance(body, dict):
        raise ApiError("InvalidParameter", "The body must be a JSON object.")
    return {name: value for name, value in body.items() if value is not None}


def check(parameters: Parameters, known: Mapping[str, Check]) -> None:
    """Holds parameters against those that an action knows.

    Raises:
        ApiError: one is not known, or of the wrong type.
    """
    for name, value in parameters.items():
        if name not in known:
            raise ApiError("UnknownParameter", f"The parameter `{name}` is not known.")
        if not known[name](value):
            raise ApiError("InvalidParameterValue", f"The parameter `{name}` has a wrong type.")


def texts(parameters: Parameters, name: str) -> tuple[str, ...]:
    """A list of strings, where there is one; for the record, before anything is checked."""
    value = parameters.get(name)
    return tuple(value) if isinstance(value, list) and is_texts(value) else ()


def _unflatten(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """``ImageIds.0=a`` and the like as the nested values that they stand for."""
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
