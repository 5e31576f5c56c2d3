"""The programs under examples/ do what they say, as processes, with a seed of their own."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import ATONCE, Process

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

pytestmark = pytest.mark.process


class Example(Process):
    """`python examples/NAME ARGS`."""

    def __init__(self, name: str, *args: str | Path) -> None:
        super().__init__(*args, command=[sys.executable, str(EXAMPLES / name)])

    def says(self, *words: str) -> str:
        """The next line that has all of these words; those before it are passed over."""
        while True:
            line = self.line().decode()
            if all(word in line for word in words):
                return line


@pytest.fixture
def seed_url(tmp_path: Path) -> Iterator[str]:
    args = [
        "seed",
        "--network",
        "examples",
        "--local",
        "--listen",
        "127.0.0.1",
        "--profile",
        tmp_path / "seed",
        "--json",
    ]
    with Process(*args, command=ATONCE) as seed:
        yield seed.event("seed")["url"]


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_without_arguments_each_says_how_it_is_used(name: str) -> None:
    ended = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert f"examples/{name}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_echo(seed_url: str, tmp_path: Path) -> None:
    with Example("echo.py", seed_url, tmp_path / "echo") as echo:
        peer_id = echo.says("send something to").split()[-1]
        args = ["send", peer_id, "hello", "--seed", seed_url, "--profile", tmp_path / "me"]
        with Process(*args, command=ATONCE) as send:
            assert send.ends().code == 0
        assert "hello" in echo.says("hello")


def test_presence_board(seed_url: str) -> None:
    with Example("presence_board.py", seed_url, "Alice") as alice:
        alice.says("you are here as Alice")
        with Example("presence_board.py", seed_url, "Bob") as bob:
            bob.says("Alice: online")
            alice.says("Bob: online")
            bob.signal(signal.SIGINT)
            alice.says("Bob: offline")
