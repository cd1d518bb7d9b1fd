"""Run a scenario and record its results, without what differs from run to run."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.pinned.normalizer import (
    Normalizer,
    event_line,
    images_of,
    lookup_line,
    request_line,
    sorted_counts,
)
from tests.pinned.renamed import recorded_words
from tests.pinned.scenario_runner import CommandResult, ScenarioFailedError, ScenarioRunner
from tests.pinned.steps import (
    ACCEPTED_EXPORTS,
    EVENTS,
    EXIT_CODES,
    FINAL_STATES,
    HISTORY,
    LOOKUPS,
    OTHER_REQUESTS,
    OUTPUT,
    REQUESTS,
    Scenario,
)

Document = dict[str, Any]
"""The parts of a recording by name, each a JSON value."""


def record(scenario: Scenario) -> Document:
    """Run a scenario in a temporary folder; return the parts that it compares.

    Raises:
        ScenarioFailedError: it did not run to its end.
    """
    with (
        tempfile.TemporaryDirectory(prefix="pinned-") as name,
        ScenarioRunner(scenario, Path(name)) as runner,
    ):
        for step in scenario.steps:
            runner.execute(step)
        return _Recording(scenario, runner).document()


class _Recording:
    """What can be seen from outside after the last step."""

    def __init__(self, scenario: Scenario, runner: ScenarioRunner) -> None:
        self._scenario = scenario
        self._runner = runner
        self._ledger = runner.ledger()
        self._jobs = self._history()
        self._normalizer = Normalizer(self._jobs, self._ledger, runner.folder, runner.url)

    def document(self) -> Document:
        """Return the parts that the scenario compares."""
        parts = {
            EXIT_CODES: self._exit_codes,
            OUTPUT: self._output,
            FINAL_STATES: self._final_states,
            ACCEPTED_EXPORTS: self._accepted_exports,
            HISTORY: self._history_lines,
            EVENTS: self._events,
            REQUESTS: self._requests,
            OTHER_REQUESTS: self._other_requests,
            LOOKUPS: self._lookups,
        }
        return {part: parts[part]() for part in self._scenario.parts}

    def _history(self) -> list[dict[str, Any]]:
        """Return the jobs, oldest first; none where there is no store."""
        listed = self._runner.run("history --json")
        if listed.code not in {0, 2}:
            raise ScenarioFailedError(f"`{listed.line}` ended with {listed.code}: {listed.stderr}")
        found: list[dict[str, Any]] = recorded_words(listed.data or [])
        return sorted(found, key=lambda job: int(job["id"]))

    def _exit_codes(self) -> dict[str, int | str]:
        return {_title(at, ended): ended.outcome for at, ended in enumerate(self._runner.ended, 1)}

    def _output(self) -> Document:
        return {
            _title(at, ended): self._normalizer.normalized(recorded_words(_kept(ended)))
            for at, ended in enumerate(self._runner.ended, 1)
            if ended.data is not None
        }

    def _final_states(self) -> dict[str, str]:
        return {f"{job['id']} {_images(job)}": job["state"] for job in self._jobs}

    def _accepted_exports(self) -> dict[str, int]:
        accepted = Counter(
            image
            for entry in self._ledger
            if entry["accepted"] and not entry["dry_run"]
            for image in entry["image_ids"]
        )
        return dict(sorted(accepted.items()))

    def _history_lines(self) -> list[Any]:
        """Return the jobs without the fields that hold nothing."""
        lines = (self._normalizer.normalized(job) for job in self._jobs)
        return [{name: one for name, one in line.items() if one is not None} for line in lines]

    def _events(self) -> dict[str, list[str]]:
        return {str(job["id"]): self._events_of(job["id"]) for job in self._jobs}

    def _events_of(self, job: int) -> list[str]:
        story = recorded_words(self._runner.run(f"show {job} --json").data)
        return [event_line(event) for event in story["events"]]

    def _requests(self) -> dict[str, int]:
        return sorted_counts(map(request_line, self._asked(exports=True)))

    def _other_requests(self) -> dict[str, int]:
        return sorted_counts(map(request_line, self._asked(exports=False)))

    def _asked(self, *, exports: bool) -> list[dict[str, Any]]:
        """Return the requests to APIs: those for exports, or the others."""
        return [
            entry
            for entry in self._ledger
            if entry["service"] != "cos" and (entry["action"] == "ExportImages") is exports
        ]

    def _lookups(self) -> list[str]:
        looks = {
            lookup_line(entry)
            for entry in self._ledger
            if entry["service"] == "cos" and entry["action"] != "ListMultipartUploads"
        }
        return sorted(looks)


def _title(number: int, ended: CommandResult) -> str:
    """Name a command by its place among the steps."""
    return f"{number}. {ended.line}"


def _kept(ended: CommandResult) -> Any:
    """Return the data of a command with only the fields that are kept.

    Data can be one object or a list of rows.
    """
    rows = ended.data if isinstance(ended.data, list) else [ended.data]
    if not ended.only:
        return ended.data
    kept = [{name: row[name] for name in ended.only} for row in rows]
    return kept if isinstance(ended.data, list) else kept[0]


def _images(job: dict[str, Any]) -> str:
    return images_of({"image_ids": job["image_ids"], "action": ""})
