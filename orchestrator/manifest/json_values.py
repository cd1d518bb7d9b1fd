"""Parse JSON: one value, or several that follow each other, with the line of each fault."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from orchestrator.manifest.problems import unreadable

_BLANKS = re.compile(r"[ \t\r\n\x1e]*")


class RepeatedKey(dict[str, Any]):
    """A JSON object in which a key occurs twice."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
    return RepeatedKey(key)


_DECODER = json.JSONDecoder(object_pairs_hook=_json_object)


def json_values(text: str, line: int) -> Iterator[Any]:
    """Yield the JSON values that a text consists of.

    Args:
        line: number of the first line.

    Raises:
        UnreadableError: the text is not JSON from some line on.
    """
    text, end = text.rstrip(), 0
    while end < len(text):
        start = found.end() if (found := _BLANKS.match(text, end)) else end
        try:
            value, end = _DECODER.raw_decode(text, start)
        except json.JSONDecodeError as error:
            line += error.lineno - 1
            reason = f"{error.msg} (column {error.colno})"
        except RecursionError:
            reason = "it is nested too deeply"
        except ValueError:  # Python reads no integer of more than 4300 digits
            reason = "a number has too many digits"
        else:
            yield value
            continue
        remedy = "Write one object on each line, or one array, with no comma after the last."
        raise unreadable(line, f"is not JSON: {reason}.", remedy)


def json_value_or_none(line: str) -> object:
    """Return the JSON value that a line consists of, or None."""
    try:
        return _DECODER.decode(line)
    except (ValueError, RecursionError):
        return None
