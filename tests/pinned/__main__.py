"""Record what the command line does, or compare what it does now with what was recorded."""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from tests.pinned.recorder import Document, record
from tests.pinned.scenarios import SCENARIOS
from tests.pinned.steps import Scenario

RECORDED = Path(__file__).with_name("recorded.json")
_AT_ONCE = 2
_WIDTH = 110


def main(words: Sequence[str] | None = None) -> int:
    """Run the command `record` or `compare` and return its exit code.

    The exit code is 1 if a recording differs or a scenario fails.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.pinned", description=__doc__)
    parser.add_argument("command", choices=("record", "compare"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="scenarios; none named is all")
    options = parser.parse_args(words)
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    if unknown := [name for name in options.names if name not in by_name]:
        parser.error(f"there is no scenario {', '.join(unknown)}; there are {', '.join(by_name)}")
    chosen = [by_name[name] for name in options.names or by_name]
    return _record(chosen) if options.command == "record" else _compare(chosen)


def _record(chosen: Sequence[Scenario]) -> int:
    """Replace the recordings of the scenarios that ran to their end."""
    results = _run_all(chosen)
    good = {name: found for name, found in results.items() if isinstance(found, dict)}
    recorded = _read() | good
    ordered = {one.name: recorded[one.name] for one in SCENARIOS if one.name in recorded}
    RECORDED.write_text(as_text(ordered) + "\n", encoding="utf-8")
    return 0 if len(good) == len(results) else 1


def _compare(chosen: Sequence[Scenario]) -> int:
    """Print each difference from the recordings."""
    recorded = _read()
    found = False
    for name, now in _run_all(chosen).items():
        for line in _differences(recorded.get(name), now):
            found = True
            _say(f"{name}  {line}", sys.stdout)
    return 1 if found else 0


def _read() -> dict[str, Document]:
    if not RECORDED.exists():
        return {}
    recorded: dict[str, Document] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return recorded


def _run_all(chosen: Sequence[Scenario]) -> dict[str, Document | Exception]:
    """Run scenarios, two at once; return what came of each, in their order."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip((one.name for one in chosen), pool.map(_run_one, chosen), strict=True))


def _run_one(scenario: Scenario) -> Document | Exception:
    began = time.monotonic()
    try:
        result: Document | Exception = record(scenario)
    except Exception as error:  # noqa: BLE001 - one scenario that fails must not end the others
        result = error
    took = f"{scenario.name}: {time.monotonic() - began:.1f} s"
    _say(f"{took}, failed: {result!r}" if isinstance(result, Exception) else took, sys.stderr)
    return result


def _say(text: str, stream: Any) -> None:
    print(text, file=stream, flush=True)


def _differences(recorded: Document | None, now: Document | Exception) -> Iterator[str]:
    """Yield what differs in one scenario."""
    if isinstance(now, Exception):
        yield f"failed: {now}"
    elif recorded is None:
        yield "has no recording"
    else:
        yield from differences(recorded, now)


def differences(recorded: Any, now: Any, place: str = "") -> Iterator[str]:
    """Yield each difference between two JSON values as text.

    Args:
        place: the keys and positions that lead to the values.
    """
    match recorded, now:
        case dict(), dict():
            yield from _between_objects(recorded, now, place)
        case list(), list():
            yield from _between_lists(recorded, now, place)
        case _ if recorded != now:
            yield f"{place}\n  - {_short(recorded)}\n  + {_short(now)}"


def _between_objects(recorded: Document, now: Document, place: str) -> Iterator[str]:
    for key in dict.fromkeys((*recorded, *now)):
        where = f"{place} / {key}" if place else key
        if key not in now:
            yield f"{where}\n  - {_short(recorded[key])}"
        elif key not in recorded:
            yield f"{where}\n  + {_short(now[key])}"
        else:
            yield from differences(recorded[key], now[key], where)


def _between_lists(recorded: list[Any], now: list[Any], place: str) -> Iterator[str]:
    before, after = ([_inline(one) for one in side] for side in (recorded, now))
    for kind, start, end, new_start, new_end in SequenceMatcher(
        a=before, b=after, autojunk=False
    ).get_opcodes():
        if kind == "equal":
            continue
        if end - start == new_end - new_start:
            for at, (one, other) in enumerate(
                zip(recorded[start:end], now[new_start:new_end], strict=True), start
            ):
                yield from differences(one, other, f"{place} / [{at}]")
            continue
        lines = [f"  - {_short(one)}" for one in recorded[start:end]]
        lines += [f"  + {_short(one)}" for one in now[new_start:new_end]]
        yield "\n".join([f"{place} / [{start}]", *lines])


def as_text(value: Any, indent: str = "") -> str:
    """Return a value as readable JSON.

    A value that fits on a line stays on one line. Otherwise each line holds as many fields as fit.
    """
    inline = _inline(value)
    if not isinstance(value, dict | list) or len(indent + inline) <= _WIDTH:
        return inline
    inner = f"{indent}  "
    if isinstance(value, dict):
        members = [f"{_inline(key)}: {as_text(one, inner)}" for key, one in value.items()]
    else:
        members = [as_text(one, inner) for one in value]
    if all(_FIELD.match(member) for member in members):
        members = list(_filled(members, _WIDTH - len(inner)))
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f",\n{inner}".join(members).join((f"{opening}\n{inner}", f"\n{indent}{closing}"))


_FIELD = re.compile(r'"\w+"(:|$)')
"""The beginning of a field, and a name alone; a title of several words begins a line."""


def _filled(members: Sequence[str], width: int) -> Iterator[str]:
    """Yield lines of as many members as fit; what takes several lines stands alone."""
    line = ""
    for member in members:
        longer = f"{line}, {member}" if line else member
        if line and ("\n" in longer or len(longer) > width):
            yield line
            longer = member
        line = longer
    yield line


def _inline(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str:
    text = _inline(value)
    return text if len(text) <= 400 else f"{text[:400]} ..."


if __name__ == "__main__":
    sys.exit(main())
