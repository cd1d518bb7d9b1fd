"""What a case must reach, and how it is told: a table for eyes, a line of JSON for scripts."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Goal:
    """What one figure should come to.

    Args:
        figure: its name.
        reach: the bound that it must keep.
        stretch: a better one.
        least: the bounds are from below.
    """

    figure: str
    bound: float
    stretch: float | None = None
    least: bool = False

    def kept(self, value: float, bound: float) -> bool:
        """Whether a value keeps a bound."""
        return value >= bound if self.least else value <= bound


EXPORTED_ONCE = Goal("accepted twice", 0)
"""Whatever else a case measures: no image is exported twice."""


@dataclass(frozen=True)
class Case:
    """One benchmark.

    Args:
        name: how it is asked for.
        about: one line.
        measure: does it; returns its figures, in the order in which they are told.
    """

    name: str
    about: str
    measure: Callable[[], "Measurement"]
    goals: Sequence[Goal] = ()

    def is_reached(self, measured: "Measurement") -> bool:
        """Whether every goal was measured, and kept; a case that could not be is no failure."""
        figures = measured.figures
        return measured.lacks is not None or all(
            goal.figure in figures and goal.kept(figures[goal.figure], goal.bound)
            for goal in self.goals
        )


@dataclass(frozen=True)
class Measurement:
    """What came of a case.

    Args:
        figures: in the order in which they are told.
        chart: lines that show how it went, where that says more than figures.
        lacks: what could not be had, so that nothing was measured.
    """

    figures: Figures
    chart: Sequence[str] = ()
    lacks: str | None = None


def format_report(case: Case, measured: Measurement) -> str:
    """A case with its figures, each beside its goal."""
    goals = {goal.figure: goal for goal in case.goals}
    lines = [f"{case.name}: {case.about}"]
    if measured.lacks is not None:
        lines.append(f"  left out: {measured.lacks}")
    for name, value in measured.figures.items():
        lines.append(
            f"  {name:32} {_number(value):>10}  {_judged(goals.get(name), value)}".rstrip()
        )
    return "\n".join([*lines, *(f"  {line}" for line in measured.chart)])


def format_json(case: Case, measured: Measurement) -> str:
    """The same as one line of JSON."""
    if measured.lacks is not None:
        return json.dumps({"case": case.name, "left out": measured.lacks})
    reached = case.is_reached(measured)
    whole: dict[str, Any] = {"case": case.name, "reached": reached, **measured.figures}
    return json.dumps(whole)


def _judged(goal: Goal | None, value: float) -> str:
    if goal is None:
        return ""
    sign = "≥" if goal.least else "≤"
    words = f"{sign} {_number(goal.bound)}"
    if goal.stretch is not None:
        words += f" ({_number(goal.stretch)})"
    if not goal.kept(value, goal.bound):
        return f"{words}  MISSED"
    stretched = goal.stretch is not None and goal.kept(value, goal.stretch)
    return f"{words}  reached, and the stretch" if stretched else f"{words}  reached"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"
