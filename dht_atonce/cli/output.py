"""What the command prints: one JSON object per line for programs, words and colour for people."""

import sys
from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["Output", "Words", "escape"]

Words = Callable[[dict[str, Any]], str | None]
"""Tells people what programs get as details, in rich markup; None: they need not know."""


def escape(text: str) -> str:
    """`text` with all that rich would take for markup taken literally."""
    from rich.markup import escape as rich_escape  # a megabyte, which a peer that speaks JSON never needs

    return rich_escape(text)


class Output:
    """Standard output in one of the two forms; errors go to standard error in either."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._console: Any = None

    @property
    def console(self) -> Any:
        """The rich console, made when first needed: a peer that speaks JSON never pays for it."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(highlight=False, soft_wrap=True)
        return self._console

    def event(self, event: str, details: dict[str, Any], words: Words) -> None:
        """Something happened."""
        if self.as_json:
            self.json({"event": event, **details})
        elif (text := words(details)) is not None:
            self.console.print(text)

    def json(self, value: object) -> None:
        """One line of JSON."""
        sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
        sys.stdout.buffer.flush()

    @staticmethod
    def error(message: str) -> None:
        """One line on standard error."""
        sys.stdout.flush()
        print(f"error: {message}", file=sys.stderr, flush=True)
