"""Who was refused lately, and how often: so that whoever comes again and again costs us no more than its handshake. No
I/O, no clock: `now` is monotonic seconds."""

from collections import OrderedDict

from dht_atonce.config import MessagingConfig

__all__ = ["Refusals"]


class Refusals:
    """A bucket of refusals for each curve key, the latest `max_refused` of them: each refusal takes one out, and one
    comes back every `refused_s`. From whoever's is empty nothing is read."""

    __slots__ = ("_config", "_full_at")

    def __init__(self, config: MessagingConfig) -> None:
        self._config = config
        self._full_at: OrderedDict[bytes, float] = OrderedDict()
        """When each bucket will be full again; the latest refused last."""

    def __len__(self) -> int:
        return len(self._full_at)

    def on_refused(self, curve_key: bytes, now: float) -> None:
        """What it said was read, and it was refused."""
        full_at = max(self._full_at.pop(curve_key, now), now)
        self._full_at[curve_key] = full_at + self._config.refused_s
        if len(self._full_at) > self._config.max_refused:
            self._full_at.popitem(last=False)

    def is_spent(self, curve_key: bytes, now: float) -> bool:
        """Whether it is refused without being read."""
        full_at = self._full_at.get(curve_key)
        if full_at is None:
            return False
        if full_at <= now:
            del self._full_at[curve_key]
            return False
        return full_at - now > (self._config.refused_burst - 1) * self._config.refused_s

    def clear(self) -> None:
        """Others are accepted from now on: whoever was refused may be one of them."""
        self._full_at.clear()
