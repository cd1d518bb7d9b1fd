"""The table of variations as Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence

from .variation_run import Outcome

_COLUMNS = (
    "variation",
    "what differs",
    "states",
    "exit",
    "hours",
    "COS requests an image",
    "twice",
    "falsely verified",
    "failed though exported",
    "failed unsent",
    "without a word",
    "waits",
    "what a person reads first",
)
_MAX_SENTENCE = 240


def header() -> str:
    """Return the first two lines."""
    return "\n".join((_line(_COLUMNS), _line(["---"] * len(_COLUMNS))))


def row(outcome: Outcome) -> str:
    """Return the line of one variation."""
    variation = outcome.variation
    return _line(
        (
            f"{variation.area}: {variation.name}",
            variation.differs,
            _counts(outcome.states),
            str(outcome.exit_code),
            f"{outcome.seconds / 3600:.1f}{'' if outcome.has_ended else ', stopped'}",
            f"{outcome.cos_requests:.0f}",
            *(str(count or "") for count in outcome.harm.counts.values()),
            _counts(outcome.reasons),
            _first_words(outcome),
        )
    )


def totals(outcomes: Sequence[Outcome]) -> str:
    """Return the sums over all variations."""
    harm: Counter[str] = Counter()
    for outcome in outcomes:
        harm.update(outcome.harm.counts)
    harmful = sum(bool(outcome.harm) for outcome in outcomes)
    sums = ", ".join(f"{name}: {count}" for name, count in harm.items())
    return f"\n{len(outcomes)} variations, {harmful} with harm; {sums}"


def _first_words(outcome: Outcome) -> str:
    """Return the first sentence of an outcome and the number of other sentences.

    Sentences of the run come before those of jobs. A long sentence is cut.
    """
    words = (*outcome.sentences, *outcome.last_words)
    first, more = next(iter(words), ""), len(words) - 1
    text = first if len(first) <= _MAX_SENTENCE else f"{first[:_MAX_SENTENCE]}…"
    return f"{text} (+{more})" if more > 0 else text


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"
