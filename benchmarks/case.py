"""Benchmark cases, their goals, and reports of their results as a table and as JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Goal:
    """The goal of one figure.

    Args:
        figure: name of the figure.
        bound: the value that it must reach.
        stretch: a better value.
        least: whether the bounds are minimums; else they are maximums.
    """

    figure: str
    bound: float
    stretch: float | None = None
    least: bool = False

    def kept(self, value: float, bound: float) -> bool:
        """Return whether a value is within a bound."""
        return value >= bound if self.least else value <= bound


EXPORTED_ONCE = Goal("accepted twice", 0)
"""The goal of every case with exports: no image is exported twice."""


@dataclass(frozen=True)
class Case:
    """One benchmark.

    Args:
        name: its name on the command line.
        about: a description of one line.
        measure: runs the case and returns its figures, in the order of the report.
    """

    name: str
    about: str
    measure: Callable[[], "Measurement"]
    goals: Sequence[Goal] = ()

    def is_reached(self, measured: "Measurement") -> bool:
        """Return whether all goals were reached; a case that could not run is no failure."""
        figures = measured.figures
        return measured.lacks is not None or all(
            goal.figure in figures and goal.kept(figures[goal.figure], goal.bound)
            for goal in self.goals
        )


@dataclass(frozen=True)
class Measurement:
    """The result of a case.

    Args:
        figures: in the order of the report.
        chart: lines that show the course of the case.
        lacks: what was not available, so that nothing was measured.
    """

    figures: Figures
    chart: Sequence[str] = ()
    lacks: str | None = None


def format_report(case: Case, measured: Measurement) -> str:
    """Return a case with its figures and goals as text."""
    goals = {goal.figure: goal for goal in case.goals}
    lines = [f"{case.name}: {case.about}"]
    if measured.lacks is not None:
        lines.append(f"  skipped: {measured.lacks}")
    for name, value in measured.figures.items():
        lines.append(
            f"  {name:32} {_number(value):>10}  {_judged(goals.get(name), value)}".rstrip()
        )
    return "\n".join([*lines, *(f"  {line}" for line in measured.chart)])


def format_json(case: Case, measured: Measurement) -> str:
    """Return a case with its figures as one line of JSON."""
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
