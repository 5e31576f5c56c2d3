"""What the command prints: one JSON object per line for programs, words and colour for people."""

import sys
from typing import Any

import msgspec

__all__ = ["Output"]


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

    def event(self, event: str, details: dict[str, Any], text: str | None = None) -> None:
        """Something happened. `text` is what people read (rich markup); None: they need not know."""
        if self.as_json:
            self.json({"event": event, **details})
        elif text is not None:
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
