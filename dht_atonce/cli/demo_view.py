"""How a demo shows itself: a table that grows, on a terminal; plain lines elsewhere; JSON for programs."""

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from dht_atonce.cli.output import Output, escape

__all__ = ["JsonView", "LinesView", "Phase", "TableView", "View", "figures_table", "view_for"]


@dataclass(slots=True)
class Phase:
    """One row of the table."""

    name: str
    asked: int = 0
    shows: str = ""
    """What it shows, in a line for people."""
    right: int = 0
    local: int = 0
    """Lookups that the node's own store answered: apart, for they are none."""
    done: int = 0
    """Of those asked, right or wrong."""
    is_over: bool = False
    times_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The figures, times in milliseconds."""
        times = sorted(self.times_ms) or [0.0]
        return {
            "phase": self.name,
            "asked": self.asked,
            "right": self.right,
            "local": self.local,
            "p50_ms": round(times[len(times) // 2], 2),
            "p99_ms": round(times[len(times) * 99 // 100], 2),
            "max_ms": round(times[-1], 2),
        }


class View(Protocol):
    """What a `Trial` tells as it goes. A context manager: a terminal is left as it was found."""

    def step(self, text: str) -> None:
        """Something that is not measured."""

    def begin(self, phase: Phase) -> None: ...

    def joined(self, phase: Phase, who: str, way: str) -> None:
        """Another peer is in."""

    def progress(self, phase: Phase) -> None:
        """Another one of those asked is done."""

    def end(self, phase: Phase) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _Quiet:
    """A view that has nothing to clean up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing."""


class JsonView(_Quiet):
    """One object per step."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def step(self, text: str) -> None:
        self._output.json({"event": "step", "text": text})

    def begin(self, phase: Phase) -> None:
        self.step(f"{phase.name} …")

    def joined(self, phase: Phase, who: str, way: str) -> None:
        self._output.json({"event": "progress", "phase": phase.name, "done": phase.right, "of": phase.asked})

    def progress(self, phase: Phase) -> None:
        """Too many for an event each."""

    def end(self, phase: Phase) -> None:
        self._output.json({"event": "phase", **phase.summary()})


class LinesView(_Quiet):
    """A line for what begins and one for what came of it: for logs."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def step(self, text: str) -> None:
        self._output.console.print(f"[bold]{escape(text)}[/]")

    def begin(self, phase: Phase) -> None:
        self._output.console.print(f"[bold]{escape(phase.name)}[/]: {escape(phase.shows)}")

    def joined(self, phase: Phase, who: str, way: str) -> None:
        self._output.console.print(f"  {phase.right:3} of {phase.asked}  {escape(who)} is in by {escape(way)}")

    def progress(self, phase: Phase) -> None:
        """Too many for a line each."""

    def end(self, phase: Phase) -> None:
        figures = phase.summary()
        times = f"p50 {figures['p50_ms']:.1f} ms, max {figures['max_ms']:.1f} ms"
        self._output.console.print(f"  {_right(phase)} right, {times}")


class TableView:
    """The table, as it grows, with what goes on at the moment below it."""

    def __init__(self, output: Output) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._rows: list[Phase | str] = []
        self._spinner = Spinner("dots")
        # Redrawn ten times a second by a thread of rich's: what is drawn is only read there.
        self._live = Live(
            console=output.console,
            get_renderable=self._draw,
            refresh_per_second=10,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def step(self, text: str) -> None:
        self._rows.append(text)

    def begin(self, phase: Phase) -> None:
        self._rows.append(phase)

    def joined(self, phase: Phase, who: str, way: str) -> None:
        """The bar shows it."""

    def progress(self, phase: Phase) -> None:
        """The bar shows it."""

    def end(self, phase: Phase) -> None:
        """The mark before it shows it."""

    def refresh(self) -> None:
        """Draw now."""
        self._live.refresh()

    def _draw(self) -> Any:
        from rich.console import Group

        rows = list(self._rows)
        if not rows:
            self._spinner.update(text="starting a seed")
            return self._spinner
        current = rows[-1]
        if isinstance(current, Phase) and not current.is_over:
            return Group(figures_table(rows[:-1]), self._at_work(current))
        # One step follows the other at once, so this is seen after the last only.
        self._spinner.update(text="all processes end")
        return Group(figures_table(rows), self._spinner)

    def _at_work(self, phase: Phase) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        self._spinner.update(text=f"[bold]{escape(phase.name)}[/]")
        line = Table.grid(padding=(0, 2))
        line.add_row(self._spinner, ProgressBar(total=phase.asked, completed=phase.done, width=30), _right(phase))
        about = Table.grid()
        about.add_row(line)
        about.add_row(f"  [dim]{escape(phase.shows)}[/]")
        return about


def figures_table(rows: list[Phase | str]) -> Any:
    """What was measured, as a rich table; a row that is a text stands between the others."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", width=1)
    table.add_column("", max_width=50)
    for name in ("right", "p50 ms", "p99 ms", "max ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        if isinstance(row, str):
            table.add_section()
            table.add_row("[red]■[/]", f"[bold]{escape(row)}[/]")
            continue
        figures = row.summary()
        times = [f"{figures[name]:.1f}" for name in ("p50_ms", "p99_ms", "max_ms")]
        mark = "[green]✓[/]" if row.right == row.asked else "[red]✗[/]"
        table.add_row(mark, f"{escape(row.name)}\n[dim]{escape(row.shows)}[/]", _right(row), *times)
    return table


def _right(phase: Phase) -> str:
    wrong = phase.done - phase.right
    return f"[{'red' if wrong else 'green'}]{phase.right} of {phase.asked}[/]"


def view_for(output: Output) -> View:
    """The view that suits whoever reads."""
    if output.as_json:
        return JsonView(output)
    console = output.console
    return TableView(output) if console.is_terminal and not console.is_dumb_terminal else LinesView(output)
