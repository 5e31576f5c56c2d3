"""What the command prints: one JSON object per line for programs, words and colour for people."""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from dht_atonce.errors import AtOnceError

__all__ = ["Output", "Words", "count", "escape", "outlet_lost", "plain"]

Words = Callable[[dict[str, Any]], str | None]
"""Tells people what programs get as details, in rich markup; None: they need not know."""

_JOINER = "\u200d"  # invisible, and part of many emoji


def plain(text: str) -> str:
    """`text` on one line, without what a terminal would obey: strangers' words are shown, not carried out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == _JOINER else c.encode("unicode_escape").decode() for c in text)


def escape(text: str) -> str:
    """`text`, `plain`, with all that rich would take for markup taken literally."""
    from rich.markup import escape as rich_escape  # a megabyte, which a peer that speaks JSON never needs

    return rich_escape(plain(text))


def count(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def outlet_lost(error: OSError) -> AtOnceError:
    """What to tell the user when standard output cannot be written; it leads nowhere from now on."""
    with contextlib.suppress(OSError):  # else Python would try, and complain, once more when it ends
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    if isinstance(error, BrokenPipeError):
        return AtOnceError("whoever read the output has gone, so this ends; to do without a reader, add: > /dev/null")
    return AtOnceError(f"standard output cannot be written: {error.strerror or error}; send it somewhere else")


class Output:
    """Standard output in one of the two forms; errors go to standard error in either.

    Raises `AtOnceError` if it cannot be written.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.is_lost = False
        """It cannot be written any more."""
        self._console: Any = None

    @property
    def console(self) -> Any:
        """The rich console, made when first needed: a peer that speaks JSON never pays for it."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=_TextSink(self._write), highlight=False, soft_wrap=True)  # type: ignore[arg-type]
        return self._console

    def event(self, event: str, details: dict[str, Any], words: Words) -> None:
        """Something happened."""
        if self.as_json:
            self.json({"event": event, **details})
        elif (text := words(details)) is not None:
            self.console.print(text)

    def json(self, value: object) -> None:
        """One line of JSON."""
        self._write(msgspec.json.encode(value) + b"\n")

    def line(self, text: str) -> None:
        """One line as it stands."""
        self._write(text.encode(errors="replace") + b"\n")

    def _write(self, data: bytes) -> None:
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            self.is_lost = True
            raise outlet_lost(error) from None

    @staticmethod
    def error(message: str) -> None:
        """One line on standard error, whatever the message has in it."""
        with contextlib.suppress(OSError):
            print(f"error: {plain(message)}", file=sys.stderr, flush=True)


class _TextSink:
    """As much of a text file as rich needs to know of standard output."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self.encoding = sys.stdout.encoding

    def write(self, text: str) -> int:
        self._write(text.encode(self.encoding, errors="replace"))
        return len(text)

    def flush(self) -> None:
        """Each write goes out at once."""

    def isatty(self) -> bool:
        return sys.stdout.isatty()

    def fileno(self) -> int:
        return sys.stdout.fileno()
