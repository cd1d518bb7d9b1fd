"""The state that the two services share."""

import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.simulator.buckets import Buckets
from orchestrator.simulator.command_line import Key, SimulatorOptions
from orchestrator.simulator.error_messages import ApiError
from orchestrator.simulator.export_tasks import Exports
from orchestrator.simulator.fault_selection import Rules
from orchestrator.simulator.http_connection import Request
from orchestrator.simulator.images import Catalogue
from orchestrator.simulator.ledger import Entry, Ledger
from orchestrator.simulator.limits import Limits
from orchestrator.simulator.parameters import Parameters
from orchestrator.simulator.settings import BucketSettings, Delivery, Fault, Refusal


@dataclass(slots=True)
class Call:
    """A request with what has been made out of it so far.

    Args:
        problem: why the parameters cannot be read, for the service to say in its turn.
    """

    request: Request
    entry: Entry
    parameters: Parameters
    problem: ApiError | None = None


@dataclass(frozen=True, slots=True)
class Clocks:
    """What tells a cloud the time; by default this machine does.

    Args:
        wall: seconds since the epoch.
        monotonic: seconds since some moment, never set.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class Cloud:
    """Images, buckets, exports and allowances, with the settings now in force."""

    def __init__(self, options: SimulatorOptions, clocks: Clocks = Clocks()) -> None:
        self.clocks = clocks
        self.settings = options.settings
        self._keys = {key.secret_id: key for key in options.keys}
        self.lent: list[Key] = []
        self.images = Catalogue(options.seed, options.images, options.regions)
        self.buckets = Buckets()
        self.exports = Exports(options.seed, self.buckets)
        self.limits = Limits()
        self.ledger = Ledger(options.ledger)
        self.chance = random.Random(options.seed)
        self._set_rules(("codes", "faults", "deliveries"))

    @property
    def keys(self) -> Mapping[str, Key]:
        """The keys that are accepted now, by secret id."""
        gone, expired = self.settings.revoked, self.settings.withdrawn
        return {
            name: replace(key, expires_at=0.0) if name in expired else key
            for name, key in self._keys.items()
            if name not in gone
        }

    def lend(self, account: str, seconds: float) -> Key:
        """Makes temporary keys, good for so long, or as long as the settings say."""
        lifetime = self.settings.lent_for or seconds
        words = (f"{self.chance.getrandbits(160):040x}" for _ in range(3))
        until = self.now() + lifetime
        lent = Key(f"AKIDlent{next(words)}", next(words), account, next(words), until)
        self._keys[lent.secret_id] = lent
        self.lent.append(lent)
        return lent

    def now(self) -> float:
        """The server's clock, in seconds since the epoch."""
        return self.clocks.wall() + self.settings.skew

    def request_id(self) -> str:
        """A number for a request."""
        return str(uuid.UUID(int=self.chance.getrandbits(128), version=4))

    def bucket(self, name: str, region: str) -> BucketSettings | None:
        """What the settings say of a bucket; ``None`` where there is none in this region."""
        bucket = self.settings.buckets.get(name, BucketSettings())
        if bucket.missing or bucket.region not in {None, region}:
            return None
        return bucket

    def change(self, **changes: Any) -> None:
        """Puts settings into force; rules that are given begin to count anew."""
        self.settings = replace(self.settings, **changes)
        self._set_rules(changes.keys())

    def refusal(self, entry: Entry) -> Refusal | None:
        """The code that a request is to be refused with."""
        return self._codes.strike(entry.image_ids, lambda rule: _meant(rule.action, entry))

    def latency(self, entry: Entry) -> float:
        """Seconds that a request is slowed down by."""
        fault = self._latencies.strike(entry.image_ids, lambda rule: _meant(rule.action, entry))
        return fault.seconds + self.chance.uniform(0, fault.jitter) if fault else 0.0

    def fault(self, entry: Entry) -> Fault | None:
        """What goes wrong with a request on its way."""
        return self._faults.strike(entry.image_ids, lambda rule: _meant(rule.action, entry))

    def delivery(self, image_id: str) -> str | None:
        """What goes wrong with an image's export."""
        rule = self._deliveries.strike((image_id,))
        return rule.kind if rule else None

    def _set_rules(self, names: Any) -> None:
        if "codes" in names:
            self._codes: Rules[Refusal] = Rules(self.settings.codes, self.chance)
        if "faults" in names:
            slow = [fault for fault in self.settings.faults if fault.kind == "latency"]
            harm = [fault for fault in self.settings.faults if fault.kind != "latency"]
            self._latencies: Rules[Fault] = Rules(slow, self.chance)
            self._faults: Rules[Fault] = Rules(harm, self.chance)
        if "deliveries" in names:
            self._deliveries: Rules[Delivery] = Rules(self.settings.deliveries, self.chance)


def _meant(target: str, entry: Entry) -> bool:
    """Whether a rule's action covers a request."""
    return target in {"*", entry.service, entry.action}
