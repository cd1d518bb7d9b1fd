"""Warn when the answers of ExportImages make no progress: only refusals, or unusable answers."""

from collections import Counter

from orchestrator.model import NOT_SENT, Outcome, Reaction
from orchestrator.run_warnings import RunWarnings

_MANY = 10
"""Answers of a region without an acceptance."""

_REPEATED = 2
"""Unusable answers of a host in a row."""

_UNUSABLE = frozenset({"Client.HttpStatus", "Client.NotAnApiAnswer", "Client.NoTaskId"})


class AnswerWarnings:
    """What one run has been answered, as far as it calls for a warning."""

    def __init__(self, warnings: RunWarnings) -> None:
        self._warnings = warnings
        self._refusals: Counter[str] = Counter()
        """By region, of those without an acceptance in this run."""
        self._accepted: set[str] = set()
        self._unusable: Counter[str] = Counter()
        """By host, in a row."""

    async def record(self, host: str, region: str, outcome: Outcome) -> None:
        """Record an answer; a request without one does not count."""
        if outcome.http_status is None or outcome.code.name == NOT_SENT:
            return
        await self._record_refusal(region, outcome)
        if outcome.code.name not in _UNUSABLE:
            self._unusable[host] = 0
            await self._warnings.clear(_unusable_key(host))
        elif is_unusable(outcome):
            self._unusable[host] += 1
            if self._unusable[host] >= _REPEATED:
                await self._warnings.warn(
                    _unusable_key(host),
                    f"{host} answers ExportImages in a way that cannot be used "
                    f"({describe_answer(outcome)}); if this continues, one request at a time may "
                    "be sent. It is assumed that the exports may have begun, so their jobs are "
                    f"looked up in the bucket. {outcome.code.remedy}",
                )

    async def _record_refusal(self, region: str, outcome: Outcome) -> None:
        if outcome.code.reaction is Reaction.ACCEPT:
            self._accepted.add(region)
            await self._warnings.clear(_refusals_key(region))
        elif region not in self._accepted:
            self._refusals[region] += 1
            if self._refusals[region] >= _MANY:
                await self._warnings.warn(
                    _refusals_key(region),
                    f"{region}: ExportImages has accepted nothing in this run (last answer: "
                    f"{describe_answer(outcome)}). It is assumed that this passes, or concerns "
                    f"single jobs, so the run continues. {outcome.code.remedy}",
                )


def is_unusable(outcome: Outcome) -> bool:
    """Return whether an answer without an error says nothing about the export, such as a page.

    These answers are reported here. A failing endpoint, which includes an error status of a
    gateway, is reported with the circuit breaker.
    """
    has_no_error = outcome.http_status is not None and outcome.http_status < 400
    return has_no_error and outcome.code.name in _UNUSABLE


def describe_answer(outcome: Outcome) -> str:
    """Return the code, the status and the first characters of an answer, or its RequestId."""
    start = " ".join(outcome.message.split())[:200]  # a page has many lines
    if not start and outcome.request_id:
        start = f"RequestId {outcome.request_id}"
    return f"{outcome.code.name}, HTTP {outcome.http_status}{f': {start}' if start else ''}"


def _unusable_key(host: str) -> str:
    return f"unusable answers of {host}"


def _refusals_key(region: str) -> str:
    return f"refusals in {region}"
