"""The state that all simulated services share."""

import random
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.simulator.buckets import Buckets
from orchestrator.simulator.error_messages import ApiError
from orchestrator.simulator.export_tasks import Exports
from orchestrator.simulator.faults import Rules
from orchestrator.simulator.http_connection import Request
from orchestrator.simulator.images import Catalogue
from orchestrator.simulator.ledger import Entry, Ledger
from orchestrator.simulator.parameters import Parameters
from orchestrator.simulator.request_counts import Limits
from orchestrator.simulator.settings import (
    BucketSettings,
    Delivery,
    Fault,
    Key,
    Refusal,
    SimulatorOptions,
)


@dataclass(slots=True)
class Call:
    """A request and what has been read from it so far.

    Args:
        read_error: why the parameters cannot be read. The service raises it later, because the
            signature is checked first.
    """

    request: Request
    entry: Entry
    parameters: Parameters
    read_error: ApiError | None = None


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of a cloud; by default those of this machine.

    Args:
        wall: seconds since the epoch.
        monotonic: seconds since an arbitrary moment; never set back.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class Cloud:
    """Images, buckets, exports and request counts, with the current settings."""

    def __init__(self, options: SimulatorOptions, clocks: Clocks = Clocks()) -> None:
        self.clocks = clocks
        self.settings = options.settings
        self._keys = {key.secret_id: key for key in options.keys}
        self.temporary_keys: list[Key] = []
        self.images = Catalogue(options.seed, options.images, options.regions)
        self.buckets = Buckets()
        self.exports = Exports(options.seed, self.buckets)
        self.limits = Limits()
        self.ledger = Ledger(options.ledger)
        self.chance = random.Random(options.seed)
        self._set_rules(("codes", "faults", "deliveries"))

    @property
    def keys(self) -> Mapping[str, Key]:
        """Return the keys that are accepted now, by secret id."""
        revoked, expired = self.settings.revoked, self.settings.withdrawn
        return {
            name: replace(key, expires_at=0.0) if name in expired else key
            for name, key in self._keys.items()
            if name not in revoked
        }

    def issue_temporary_key(self, account: str, seconds: float) -> Key:
        """Issue a temporary key.

        Args:
            seconds: validity of the key, unless `Settings.lent_for` overrides it.
        """
        lifetime = self.settings.lent_for or seconds
        words = (f"{self.chance.getrandbits(160):040x}" for _ in range(3))
        until = self.now() + lifetime
        key = Key(f"AKIDlent{next(words)}", next(words), account, next(words), until)
        self._keys[key.secret_id] = key
        self.temporary_keys.append(key)
        return key

    def now(self) -> float:
        """Return the time of the server's clock, in seconds since the epoch."""
        return self.clocks.wall() + self.settings.skew

    def cos_now(self) -> float:
        """Return the time of the clock of COS, in seconds since the epoch."""
        return self.now() + self.settings.cos_skew

    def date(self, service: str) -> float:
        """Return the time in a service's Date header, in seconds since the epoch."""
        if service == "cos":
            return self.cos_now() + self.settings.cos_date_skew
        return self.now() + (self.settings.cvm_date_skew if service == "cvm" else 0.0)

    def request_id(self) -> str:
        """Return a new RequestId."""
        return str(uuid.UUID(int=self.chance.getrandbits(128), version=4))

    def bucket(self, name: str, region: str) -> BucketSettings | None:
        """Return the settings of a bucket; None if it does not exist in this region."""
        bucket = self.settings.buckets.get(name, BucketSettings())
        if bucket.missing or bucket.region not in {None, region}:
            return None
        return bucket

    def change(self, **changes: Any) -> None:
        """Change settings; the counts of replaced rules start again."""
        self.settings = replace(self.settings, **changes)
        self._set_rules(changes.keys())

    def refusal(self, entry: Entry) -> Refusal | None:
        """Return the rule by which this request is refused, or None."""
        return self._codes.select(entry.image_ids, lambda rule: _covers(rule.action, entry))

    def latency(self, entry: Entry) -> float:
        """Return the delay of this request in seconds, and count one use of its rule."""
        fault = self._latencies.select(entry.image_ids, lambda rule: _covers(rule.action, entry))
        return fault.seconds + self.chance.uniform(0, fault.jitter) if fault else 0.0

    def fault(self, entry: Entry) -> Fault | None:
        """Return the network fault that this request meets, or None."""
        return self._faults.select(entry.image_ids, lambda rule: _covers(rule.action, entry))

    def delivery(self, image_id: str) -> str | None:
        """Return what goes wrong with an image's export, or None."""
        rule = self._deliveries.select((image_id,))
        return rule.kind if rule else None

    def _set_rules(self, names: Collection[str]) -> None:
        if "codes" in names:
            self._codes: Rules[Refusal] = Rules(self.settings.codes, self.chance)
        if "faults" in names:
            # apart, because one request can be slow and also meet another fault
            latencies = [fault for fault in self.settings.faults if fault.kind == "latency"]
            others = [fault for fault in self.settings.faults if fault.kind != "latency"]
            self._latencies: Rules[Fault] = Rules(latencies, self.chance)
            self._faults: Rules[Fault] = Rules(others, self.chance)
        if "deliveries" in names:
            self._deliveries: Rules[Delivery] = Rules(self.settings.deliveries, self.chance)


def _covers(target: str, entry: Entry) -> bool:
    """Return whether the action of a rule covers this request."""
    return target in {"*", entry.service, entry.action}
