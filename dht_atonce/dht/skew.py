"""A wrong clock is said, not suffered: what others' clocks tell of ours."""

from collections import OrderedDict
from statistics import median

from dht_atonce.config import DhtConfig

__all__ = ["ClockSkew"]

_MIN_VOICES = 3  # one liar beside one honest node shall not keep us from publishing
_MAX_VOICES = 31  # the latest so many nodes have one voice each


class ClockSkew:
    """How far our wall clock is from the median of the nodes that answered us."""

    def __init__(self, config: DhtConfig) -> None:
        self._config = config
        self._offsets: OrderedDict[bytes, float] = OrderedDict()

    def on_time(self, key: bytes, their_time_s: float, our_time_s: float) -> None:
        """The node `key` says that it is `their_time_s` (Unix) when we believe it is `our_time_s`."""
        self._offsets[key] = their_time_s - our_time_s
        self._offsets.move_to_end(key)
        if len(self._offsets) > _MAX_VOICES:
            self._offsets.popitem(last=False)

    @property
    def offset_s(self) -> float:
        """Seconds that our clock is behind the others' median; 0 before anybody spoke."""
        return median(self._offsets.values()) if self._offsets else 0.0

    @property
    def correction_s(self) -> float:
        """What to add to our clock before we sign: 0 unless it is off by more than a minute."""
        offset = self.offset_s
        return offset if abs(offset) > self._config.clock_warn_s else 0.0

    @property
    def is_hopeless(self) -> bool:
        """Off by more than a day from at least three voices: who is wrong then, nobody can say."""
        return len(self._offsets) >= _MIN_VOICES and abs(self.offset_s) > self._config.clock_refuse_s
