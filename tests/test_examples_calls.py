"""The examples for requests and for contacts, and `atonce contacts`, as real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from cli_support import Member, Process, atonce, peer, seed, until

pytestmark = pytest.mark.process

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    with seed(tmp_path_factory.mktemp("seed")) as made:
        yield made


def example(name: str, *args: str | Path, stdin: int | IO[bytes] = subprocess.DEVNULL) -> Process:
    return Process(*args, command=[sys.executable, str(EXAMPLES / name)], stdin=stdin)


def test_a_service_and_whoever_asks_it(entry: Member) -> None:
    with example("service.py", "serve", entry.url) as shop:
        who = shop.line().decode().removeprefix("ask ").strip()
        with example("service.py", "ask", entry.url, who, "bread", "gold", "salt") as asking:
            outcome = asking.ends()
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.text == "bread: 4\ngold: none: there is no gold here\nsalt: 1\n"
        shop.signal(signal.SIGINT)
        assert shop.ends().code == 0


class Chatter:
    """Somebody in the private chat."""

    def __init__(self, stack: ExitStack, url: str, profile: Path) -> None:
        read_end, write_end = os.pipe()
        self._keyboard = stack.enter_context(os.fdopen(write_end, "wb", buffering=0))
        with os.fdopen(read_end, "rb") as stdin:
            self._process = stack.enter_context(example("private_chat.py", url, profile, stdin=stdin))
        self.id = self.reads("you are ")

    def types(self, line: str) -> None:
        self._keyboard.write(line.encode() + b"\n")

    def reads(self, expected: str) -> str:
        """The next line begins so; gives the rest of it."""
        line = self._process.line().decode().rstrip("\n")
        assert line.startswith(expected), line
        return line.removeprefix(expected)

    def leaves(self) -> int:
        self._keyboard.close()
        return self._process.ends().code


def test_a_chat_that_lets_in_contacts_only(entry: Member, tmp_path: Path) -> None:
    with ExitStack() as stack:
        alice, bob = (Chatter(stack, entry.url, tmp_path / name) for name in ("alice", "bob"))
        bob.types(f"/add Alice={alice.id}")
        bob.reads("* Alice may come in")
        bob.types("hello")
        bob.reads("* Alice has not added you")
        alice.types("/add Bob=nobody")
        alice.reads("* a PeerId has 56 characters")
        alice.types(f"/add Bob={bob.id}")
        alice.reads("* Bob may come in")
        bob.types("hello again")
        alice.reads("Bob: hello again")
        alice.types("/remove Bob")
        alice.reads("* Bob is out")
        assert (alice.leaves(), bob.leaves()) == (0, 0)
        listed = atonce("contacts", "list", "--profile", tmp_path / "bob")
        assert listed.text == f"{alice.id} Alice\n"


# --- the command ---


@contextmanager
def private(profile: Path, url: str) -> Iterator[Member]:
    with peer(profile, url, "--contacts-only") as member:
        yield member


def change(word: str, profile: Path, *args: str) -> dict[str, Any]:
    return atonce("contacts", word, *args, "--profile", profile, "--json").object


def test_contacts_are_changed_whether_or_not_the_peer_runs(entry: Member, tmp_path: Path) -> None:
    alice, bob = tmp_path / "alice", tmp_path / "bob"
    ids = {folder: atonce("id", "new", "--profile", folder).text.strip() for folder in (alice, bob)}
    with private(alice, entry.url), peer(bob, entry.url):
        send = ("send", ids[alice], "hello", "--profile", bob)
        assert "does not accept us" in atonce(*send).error
        assert change("add", alice, ids[bob], "Bob") == {"peer": ids[bob], "is_contact": True}
        assert atonce(*send).code == 0
        assert change("list", alice) == {"contacts": [{"peer": ids[bob], "name": "Bob"}]}
        assert change("remove", alice, ids[bob]) == {"peer": ids[bob], "is_contact": False}
        until(lambda: "does not accept us" in atonce(*send).err, "Bob has heard that he is out")
        assert "is no contact" in atonce("contacts", "remove", ids[bob], "--profile", alice).error
    assert atonce("contacts", "add", ids[bob], "Bobby", "--profile", alice).text == f"added {ids[bob][:8]}… Bobby\n"
    assert atonce("contacts", "list", "--profile", alice).text == f"{ids[bob]} Bobby\n"
    assert atonce("contacts", "add", ids[bob], "Bob", "--profile", tmp_path / "new").text.startswith("added")
    assert atonce("contacts", "list", "--profile", tmp_path / "new").text == f"{ids[bob]} Bob\n"


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["add", "nobody"], "56 characters"),
        (["add", "56l7qztzhlof3yprjbo24yrwd2epjry3egrwf7qbu7yiu666hfxz7hyb", "x" * 65], "at most 64 bytes"),
        (["remove", "56l7qztzhlof3yprjbo24yrwd2epjry3egrwf7qbu7yiu666hfxz7hyb"], "is no contact of this profile"),
    ],
)
def test_mistakes_are_explained_in_one_line(args: list[str], error: str, tmp_path: Path) -> None:
    assert "there is no profile in" in atonce("contacts", "list", "--profile", tmp_path / "none").error
    atonce("id", "new", "--profile", tmp_path / "own")
    assert error in atonce("contacts", *args, "--profile", tmp_path / "own").error
