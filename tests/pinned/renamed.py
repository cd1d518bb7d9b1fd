"""Words of the command line that were renamed on purpose since the recording."""

from collections.abc import Mapping
from typing import Any

RENAMED: Mapping[str, str] = {}
"""The word now in use, by the recorded word: a command, an option, a variable, a key of JSON, or a
whole value such as an event's kind. Add a line for each word that is renamed, so that the
comparison shows only what changed by mistake. After a new recording the table is empty again."""


def word_in_use(recorded: str) -> str:
    """Return the word to say instead of a recorded one."""
    return RENAMED.get(recorded, recorded)


def recorded_words(value: Any) -> Any:
    """Return data of a command in the words of the recording."""
    before = {now: recorded for recorded, now in RENAMED.items()}
    match value:
        case dict():
            return {before.get(key, key): recorded_words(one) for key, one in value.items()}
        case list():
            return [recorded_words(one) for one in value]
        case str():
            return before.get(value, value)
    return value
