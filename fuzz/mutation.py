"""Makes bad input out of good: bytes are flipped, cut and mixed; msgpack is taken apart, changed and packed again."""

import random
from collections.abc import Iterator
from typing import Any

import msgspec

__all__ = ["MAX_INPUT", "Mutator"]

MAX_INPUT = 4096
"""Bytes of an input: more than any of our structures may have."""

_INTERESTING_BYTES = (
    b"",
    b"\x00",
    b"\xff" * 8,
    b"\x80",
    b"\xc0",
    b"\xc1",
    b"\xc4\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\x91" * 1100,  # nested deeper than Python's stack
    b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + bytes(7),
    b"\xd6\xff\xff\xff\xff\xff",  # a timestamp
    b"\xcb\x7f\xf8" + bytes(6),  # not a number
)
_INTERESTING_FIELDS: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1,
    255,
    256,
    65_536,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
    -(1 << 63),
    0.5,
    float("nan"),
    "",
    "text",
    "\x00" * 65,
    "ü" * 64,
    b"",
    bytes(6),
    bytes(8),
    bytes(16),
    bytes(18),
    bytes(20),
    bytes(32),
    bytes(38),
    bytes(64),
    bytes(1300),
    [],
    [[]],
    {},
    {"a": 1},
)


class Mutator:
    """An endless stream of inputs, always the same for one `random.Random` and corpus."""

    def __init__(self, rng: random.Random, corpus: list[bytes]) -> None:
        self._rng = rng
        self._corpus = corpus or [b""]
        self._trees = [_tree(data) for data in self._corpus]

    def next(self) -> bytes:
        """One more."""
        rng = self._rng
        at = rng.randrange(len(self._corpus))
        tree = self._trees[at]
        data = self._corpus[at]
        tears = rng.choice((1, 1, 2, 4))
        if isinstance(tree, list) and rng.random() < 0.6:
            for _ in range(rng.choice((1, 1, 2))):
                tree = self._changed(tree)
            data = self._packed(tree, data)
            tears = rng.choice((0, 0, 0, 1))  # what cannot be read reaches nothing that lies behind reading
        for _ in range(tears):
            data = self._torn(data)
        return data[:MAX_INPUT]

    def _packed(self, tree: Any, otherwise: bytes) -> bytes:
        try:
            return msgspec.msgpack.encode(tree)
        except (OverflowError, TypeError, UnicodeEncodeError):
            return otherwise

    def _changed(self, tree: list[Any]) -> list[Any]:
        """A copy with one element, however deep, changed, left out or doubled."""
        rng = self._rng
        made = _copied(tree)
        places = list(_places(made))
        if not places:
            return [rng.choice(_INTERESTING_FIELDS)]
        holder, at = rng.choice(places)
        kind = rng.randrange(8)
        if isinstance(holder[at], bytes) and kind < 5:
            holder[at] = self._torn(holder[at])
        elif isinstance(holder[at], int) and kind < 3:
            holder[at] += rng.choice((-1, 1, 256, -256))
        elif kind == 5:
            del holder[at]
        elif kind == 6:
            holder[at:at] = [holder[at]] * rng.choice((1, 2, 20))
        elif kind == 7:
            holder.append(rng.choice(_INTERESTING_FIELDS))
        else:
            holder[at] = rng.choice(_INTERESTING_FIELDS)
        return made

    def _torn(self, data: bytes) -> bytes:
        """Bytes with one thing done to them."""
        rng = self._rng
        if not data:
            return rng.choice(_INTERESTING_BYTES)
        at = rng.randrange(len(data))
        match rng.randrange(8):
            case 0 | 1:
                return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
            case 2:
                return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 3:
                return data[:at]
            case 4:
                return data[:at] + data[at + rng.randrange(1, 9) :]
            case 5:
                return data[:at] + rng.choice(_INTERESTING_BYTES) + data[at:]
            case 6:
                return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]
            case _:
                other = rng.choice(self._corpus)
                return data[:at] + other[rng.randrange(len(other) + 1) :]


def _copied(tree: Any) -> Any:
    return [_copied(one) for one in tree] if isinstance(tree, list) else tree


def _places(tree: list[Any]) -> Iterator[tuple[list[Any], int]]:
    """Each element of a list and of the lists in it."""
    for at, one in enumerate(tree):
        yield tree, at
        if isinstance(one, list):
            yield from _places(one)


def _tree(data: bytes) -> Any:
    try:
        return msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
