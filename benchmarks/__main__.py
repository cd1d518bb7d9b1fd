"""``python -m benchmarks [CASE …]``: runs them, and tells each as soon as it is measured."""

import sys

from benchmarks import drain, enqueue, fleet, gate, history, long_exports, rate, startup
from benchmarks.figures import Case, as_json, told

_ROOMS = (rate, gate, long_exports, drain, enqueue, startup, fleet, history)
CASES: dict[str, Case] = {case.name: case for room in _ROOMS for case in room.CASES}


def main(wanted: list[str]) -> int:
    """Runs the cases whose names begin with one of those wanted; without any, all."""
    chosen = [case for name, case in CASES.items() if name.startswith(tuple(wanted or [""]))]
    if not chosen:
        print(f"There is no such case; there are: {', '.join(CASES)}", file=sys.stderr)
        return 2
    print(f"In this order: {', '.join(case.name for case in chosen)}", file=sys.stderr, flush=True)
    missed = 0
    for case in chosen:
        measured = case.measure()
        print(told(case, measured), file=sys.stderr, flush=True)
        print(as_json(case, measured), flush=True)
        missed += not case.is_reached(measured)
    return 1 if missed else 0


sys.exit(main(sys.argv[1:]))
