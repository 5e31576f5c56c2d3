"""Those who did not answer: their own questions do not make up for that.

Whoever answers nobody and goes on asking is really at its address, as its cookies prove; but for lookups it is as good
as dead. Yet one that was away and is back asks too, before anybody asks it, and so does one whose answer was lost. So a
question from one of these is worth a question of ours, now and then, and an answer to that ends all doubt.
"""

from typing import Final

__all__ = ["Doubts"]

_MOST: Final = 1024
"""The latest are remembered. Who is forgotten may have one more seat until it fails again."""


class Doubts:
    """Of one routing table; nodes by their ids as numbers, `now` is monotonic seconds."""

    __slots__ = ("_ask_at", "_pause_s")

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        # Id → when it may be asked again
        self._ask_at: dict[int, float] = {}

    def __contains__(self, long_id: int) -> bool:
        return long_id in self._ask_at

    def on_silent(self, long_id: int, now: float) -> None:
        """It did not answer."""
        if len(self._ask_at) >= _MOST and long_id not in self._ask_at:
            del self._ask_at[next(iter(self._ask_at))]
        self._ask_at[long_id] = now

    def on_answer(self, long_id: int) -> None:
        """It is there after all."""
        self._ask_at.pop(long_id, None)

    def take(self, long_id: int, now: float) -> bool:
        """It asks us. Whether it is doubted, and to be asked in turn; at most once in `pause_s`."""
        ask_at = self._ask_at.get(long_id)
        if ask_at is None or now < ask_at:
            return False
        self._ask_at[long_id] = now + self._pause_s
        return True
