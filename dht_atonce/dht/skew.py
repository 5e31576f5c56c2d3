"""A wrong clock is said, not suffered: what others' clocks tell of ours."""

from array import array
from statistics import median

from dht_atonce.config import DhtConfig
from dht_atonce.dht.voices import Voices

__all__ = ["ClockSkew"]

_MIN_VOICES = 3  # one liar beside one honest node shall not keep us from publishing


class ClockSkew:
    """How far our wall clock is from the median of the nodes that answered us."""

    __slots__ = ("_config", "_differing", "_offsets")

    def __init__(self, config: DhtConfig) -> None:
        self._config = config
        self._offsets: Voices[float] = Voices(array("d"))
        self._differing = 0

    def on_time(self, key: bytes, their_time_s: float, our_time_s: float) -> None:
        """The node `key` says that it is `their_time_s` (Unix) when we believe it is `our_time_s`."""
        offset = their_time_s - our_time_s
        forgotten = self._offsets.on_voice(key, offset)
        most = self._config.clock_warn_s
        if abs(offset) > most:
            self._differing += 1
        if forgotten is not None and abs(forgotten) > most:
            self._differing -= 1

    @property
    def offset_s(self) -> float:
        """Seconds that our clock is behind the others' median; 0 before anybody spoke."""
        return median(self._offsets) if len(self._offsets) else 0.0

    @property
    def correction_s(self) -> float:
        """What to add to our clock before we sign: 0 unless it is off by more than a minute."""
        # Asked for each packet: while most differ by less, so does the median.
        if not self._differing or 2 * self._differing < len(self._offsets):
            return 0.0
        offset = self.offset_s
        return offset if abs(offset) > self._config.clock_warn_s else 0.0

    @property
    def is_hopeless(self) -> bool:
        """Off by more than a day from at least three voices: who is wrong then, nobody can say."""
        return len(self._offsets) >= _MIN_VOICES and abs(self.offset_s) > self._config.clock_refuse_s
