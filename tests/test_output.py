"""What is printed: strangers' words made harmless, and output that waits for no reader."""

import asyncio
import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dht_atonce.cli import live, output
from dht_atonce.cli.live import LiveOutput
from dht_atonce.cli.output import Output, count, escape, plain
from dht_atonce.errors import AtOnceError, EntryFailed

# --- words ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hello, wörld 👋 漢字", "hello, wörld 👋 漢字"),
        ("👨‍👩‍👧", "👨‍👩‍👧"),  # one emoji, put together by invisible joiners
        ("", ""),
        ("two\nlines\r\n", "two\\nlines\\r\\n"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),  # the same in one byte
        ("gone\x08\x08\x7f", "gone\\x08\\x08\\x7f"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),  # turns the direction of writing
        ("a\u2028b\x85c", "a\\u2028b\\x85c"),  # line ends, to some
        ("\ud800", "\\ud800"),
        ("back\\slash [bold]", "back\\slash [bold]"),
    ],
)
def test_plain_text_is_one_line_that_no_terminal_obeys(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert plain(plain(text)) == plain(text)


def test_markup_is_taken_literally() -> None:
    assert escape("[bold]\x1b") == "\\[bold]\\x1b"


def test_numbers_of_things() -> None:
    assert [count(number, "node") for number in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Output.error("the seed said no: \x1b[31mline one\nline two")
    assert capsys.readouterr().err == "error: the seed said no: \\x1b[31mline one\\nline two\n"


# --- live output ---


class Pipe:
    """Standard output, and its reader."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reader, writer = os.pipe()
        self.stdout = os.fdopen(writer, "w")
        self.reader: io.BufferedReader = os.fdopen(reader, "rb")
        # Not sys.stdout itself: pytest puts its own there for each phase of a test.
        for module in (live, output):
            monkeypatch.setattr(module, "sys", SimpleNamespace(stdout=self.stdout, stderr=sys.stderr))

    def objects(self) -> list[dict[str, Any]]:
        """All that was written, once nobody writes any more."""
        self.stdout.close()
        return [json.loads(line) for line in self.reader]

    async def read(self, size: int) -> bytes:
        """At most so many bytes, as soon as there are any, without holding up the loop."""
        return await asyncio.get_running_loop().run_in_executor(None, self.reader.read1, size)

    def close(self) -> None:
        """The reader first: a thread that still writes then comes to its end."""
        self.reader.close()
        for thread in threading.enumerate():
            if thread.name == "standard output":
                thread.join(10)
        self.stdout.close()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    made = Pipe(monkeypatch)
    yield made
    monkeypatch.undo()
    made.close()


def number(out: Output, value: int, filling: str = "") -> None:
    out.event("number", {"value": value, "filling": filling}, lambda details: f"[bold]{details['value']}[/]")


async def test_all_that_is_said_arrives_in_order(pipe: Pipe) -> None:
    async with LiveOutput(as_json=True) as out:
        for value in range(1000):
            number(out, value)
            await out.room()
    assert [each["value"] for each in pipe.objects()] == list(range(1000))


async def test_people_get_words_and_no_colours_in_a_pipe(pipe: Pipe) -> None:
    async with LiveOutput(as_json=False) as out:
        number(out, 1)
        out.event("secret", {}, lambda _: None)
        number(out, 2)
    pipe.stdout.close()
    assert pipe.reader.read() == b"1\n2\n"


async def test_room_waits_for_a_slow_reader(pipe: Pipe) -> None:
    kilobyte, said = "x" * 1000, 0

    async def say() -> None:
        nonlocal said
        async with LiveOutput(as_json=True) as out:
            for value in range(2000):
                number(out, value, kilobyte)
                await out.room()
                said = value + 1

    saying = asyncio.create_task(say())
    await pipe.read(10_000)
    await asyncio.sleep(0.05)
    stopped_at = said
    assert 200 < stopped_at < 500  # a quarter of a megabyte waits, and what the pipe holds
    while not saying.done():
        await pipe.read(100_000) if said < 2000 else await asyncio.sleep(0.001)
    await saying
    assert said == 2000


async def test_what_cannot_wait_is_left_out_and_counted(pipe: Pipe) -> None:
    async with LiveOutput(as_json=True) as out:
        for value in range(3000):
            number(out, value, "x" * 1000)
        lines: list[dict[str, Any]] = []
        while not lines or lines[-1]["event"] != "left_out":
            lines.append(json.loads(await asyncio.get_running_loop().run_in_executor(None, pipe.reader.readline)))
    *numbers, left_out = lines
    assert [each["value"] for each in numbers] == list(range(len(numbers)))
    assert left_out == {"event": "left_out", "events": 3000 - len(numbers)}


async def test_a_reader_that_has_gone_ends_it(pipe: Pipe) -> None:
    wound_down = False

    async def say() -> None:
        nonlocal wound_down
        async with LiveOutput(as_json=True) as out:
            number(out, 1)
            try:
                await asyncio.Event().wait()
            finally:
                number(out, 2)  # may be said, and is heard by nobody
                await asyncio.sleep(0)
                wound_down = True

    pipe.reader.close()
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(AtOnceError, match="whoever read the output has gone"):
        await say()
    assert wound_down
    assert not task.cancelling()


async def test_a_reader_that_goes_in_the_meantime_is_noticed(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    async def say() -> None:
        async with LiveOutput(as_json=True) as out:
            number(out, 1)
            await pipe.read(10)
            pipe.reader.close()
            await asyncio.Event().wait()

    monkeypatch.setattr("dht_atonce.cli.live._LOOK_S", 0.01)
    with pytest.raises(AtOnceError, match="whoever read the output has gone"):
        await say()


async def test_the_blocks_own_error_comes_first(pipe: Pipe) -> None:
    with pytest.raises(EntryFailed):
        async with LiveOutput(as_json=True):
            raise EntryFailed("no way in")


async def test_a_signal_stays_a_signal_when_the_reader_goes_too(pipe: Pipe) -> None:
    async def say() -> None:
        async with LiveOutput(as_json=True) as out:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                pipe.reader.close()
                number(out, 1)
                await asyncio.sleep(0.05)

    began = asyncio.Event()
    saying = asyncio.create_task(say())
    await began.wait()
    saying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saying


async def test_a_reader_that_has_stopped_does_not_hold_up_the_end(pipe: Pipe) -> None:
    async with asyncio.timeout(5):
        async with LiveOutput(as_json=True) as out:
            for value in range(500):
                number(out, value, "x" * 1000)
