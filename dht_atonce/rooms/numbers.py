"""What names a statement, and how many names are said at once: those in a row are a range. No I/O, no clock."""

from collections.abc import Iterable

from dht_atonce.errors import WireError
from dht_atonce.rooms.wire import Range, Statement, Stream, suspect_of

__all__ = ["Number", "number_of", "numbers_of", "pages", "ranges_of"]

Number = tuple[bytes, int, int, int]
"""What names a statement: whom it is of, session, stream, seq."""

_MAX_EXPANDED = 1024  # statements that one message may ask for or announce
_MAX_SEQ = 1 << 63  # nobody gets there; what is beyond must not make us count past 64 bits
_RANGES = 256  # of one message


def number_of(statement: Statement) -> Number:
    """A GONE has the number of a HERE, and a suspicion that of whom it suspects. Raises `WireError`."""
    stream = statement.stream
    if stream == Stream.SUSPECT:
        member, session, version = suspect_of(statement.data)
        return member, session, stream, version
    if stream > Stream.SUSPECT:
        raise WireError("unknown stream")
    return statement.author, statement.session, Stream.HERE if stream == Stream.GONE else stream, statement.seq


def ranges_of(numbers: Iterable[Number]) -> list[Range]:
    """The same numbers, those in a row together."""
    ranges: list[Range] = []
    of = None
    first = count = 0
    for author, session, stream, seq in numbers:
        if of == (author, session, stream) and seq == first + count:
            count += 1
            continue
        if of is not None:
            ranges.append(Range(*of, first, count))
        of, first, count = (author, session, stream), seq, 1
    if of is not None:
        ranges.append(Range(*of, first, count))
    return ranges


def numbers_of(ranges: list[Range]) -> list[Number]:
    """The reverse, as far as one message may go."""
    numbers: list[Number] = []
    for one in ranges:
        room = _MAX_EXPANDED - len(numbers)
        stream = Stream.HERE if one.stream == Stream.GONE else one.stream
        count = min(one.count, room, max(0, _MAX_SEQ - one.first))
        numbers += [(one.author, one.session, stream, one.first + n) for n in range(count)]
    return numbers


def pages(numbers: Iterable[Number]) -> list[list[Range]]:
    """Their ranges, by the message."""
    ranges = ranges_of(numbers)
    return [ranges[at : at + _RANGES] for at in range(0, len(ranges), _RANGES)]
