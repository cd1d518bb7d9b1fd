"""``python -m benchmarks [CASE …]``: run the cases and print each result when it is measured."""

import sys

from benchmarks.case import Case, format_json, format_report
from benchmarks.cases import (
    concurrency_limit,
    durability,
    enqueue,
    four_accounts,
    history,
    long_exports,
    rate,
    startup,
)

_MODULES = (
    rate,
    concurrency_limit,
    long_exports,
    durability,
    enqueue,
    startup,
    four_accounts,
    history,
)
CASES: dict[str, Case] = {case.name: case for module in _MODULES for case in module.CASES}


def main(wanted: list[str]) -> int:
    """Run the cases whose names begin with an argument, or all without arguments."""
    chosen = [case for name, case in CASES.items() if name.startswith(tuple(wanted or [""]))]
    if not chosen:
        print(f"No such case. Known cases: {', '.join(CASES)}", file=sys.stderr)
        return 2
    print(f"Cases: {', '.join(case.name for case in chosen)}", file=sys.stderr, flush=True)
    missed = 0
    for case in chosen:
        measured = case.measure()
        print(format_report(case, measured), file=sys.stderr, flush=True)
        print(format_json(case, measured), flush=True)
        missed += not case.is_reached(measured)
    return 1 if missed else 0


sys.exit(main(sys.argv[1:]))
