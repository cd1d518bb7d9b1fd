"""Which rule fits a request, in turn and by chance."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from orchestrator.simulator.settings import Rule

R = TypeVar("R", bound=Rule)


@dataclass(slots=True)
class _Turn(Generic[R]):
    rule: R
    left: int | None


class Rules(Generic[R]):
    """Rules of one kind with what is left of them; a new set starts counting anew."""

    def __init__(self, rules: Iterable[R], chance: random.Random) -> None:
        self._turns = [_Turn(rule, rule.times) for rule in rules]
        self._chance = chance

    def strike(
        self, images: tuple[str, ...], fits: Callable[[R], bool] = lambda _: True
    ) -> R | None:
        """The first rule that fits a request with these images, and is drawn; counts its use."""
        for turn in self._turns:
            if turn.left != 0 and fits(turn.rule) and self._meets(turn.rule, images):
                if turn.left is not None:
                    turn.left -= 1
                return turn.rule
        return None

    def _meets(self, rule: R, images: tuple[str, ...]) -> bool:
        named = not rule.images or not set(rule.images).isdisjoint(images)
        return named and (rule.chance >= 1 or self._chance.random() < rule.chance)
