"""Settings from JSON: an unknown key or a wrong type is an error that names it."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from orchestrator.simulator.settings import Settings

T = TypeVar("T")


class ScenarioError(ValueError):
    """A scenario has an unknown key or a wrong value."""


def read_changes(document: object, current: Settings) -> dict[str, Any]:
    """Return the settings in a JSON object.

    Mappings (limits, caps, images, buckets) are merged into the current ones.

    Raises:
        ScenarioError: names the key.
    """
    changes = _members(Settings, document, "the settings")
    for name, value in changes.items():
        if isinstance(value, Mapping):
            changes[name] = {**getattr(current, name), **value}
    return changes


def _members(kind: type, document: object, where: str) -> dict[str, Any]:
    """Return the members of a dataclass that a JSON object contains."""
    if not isinstance(document, dict):
        raise ScenarioError(f"{where} must be an object")
    hints = get_type_hints(kind)
    for name in document:
        if name not in hints:
            raise ScenarioError(f"unknown key {name!r} in {where}; known: {', '.join(hints)}")
    return {name: _value(hints[name], value, name) for name, value in document.items()}


def _value(hint: Any, value: object, where: str) -> Any:
    """Convert a JSON value to the type of a member."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        rest = next(one for one in arguments if one is not types.NoneType)
        return None if value is None else _value(rest, value, where)
    if origin is Literal:
        return _one_of(arguments, value, where)
    if origin is tuple:
        items = _plain(list, value, where)
        return tuple(_value(arguments[0], item, f"{where}[{n}]") for n, item in enumerate(items))
    if origin is Mapping:
        pairs = _plain(dict, value, where)
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in pairs.items()}
    if is_dataclass(hint):
        return _object(hint, value, where)
    return _plain(hint, value, where)


def _object(kind: Any, value: object, where: str) -> Any:
    """Convert a JSON object to a dataclass."""
    members = _members(kind, value, where)
    for one in fields(kind):
        if one.name not in members and one.default is one.default_factory is MISSING:
            raise ScenarioError(f"{where} lacks the key {one.name!r}")
    return kind(**members)


def _one_of(choices: tuple[Any, ...], value: object, where: str) -> Any:
    if value not in choices:
        raise ScenarioError(f"{where} must be one of {', '.join(choices)}, not {value!r}")
    return value


def _plain(kind: type[T], value: object, where: str) -> T:
    """Return a value if it has exactly this type.

    An integer counts as a float. A Boolean does not count as a number.

    Raises:
        ScenarioError: the value has another type.
    """
    if kind is float and type(value) is int:
        return kind(value)  # type: ignore[call-arg]  # kind is float here
    if type(value) is not kind:
        raise ScenarioError(f"{where} must be {kind.__name__}, not {value!r}")
    return value
