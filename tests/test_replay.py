"""Replay: what one host did, and how one lookup went, in order and in words, though datagrams are sealed."""

import functools
import re
from itertools import pairwise

import pytest
from support import LOCAL, node_key

import atonce_sim.replay
from atonce_sim.ciphers import PassThrough
from atonce_sim.replay import Line, Recorder
from atonce_sim.results import Run
from atonce_sim.scenario import Scenario
from atonce_sim.scenario_file import read_scenario
from atonce_sim.simulation import Options, simulate
from atonce_sim.trace import Seen
from dht_atonce.codec import encode
from dht_atonce.dht.wire import FindValue, Found

TOWN = """
question = "?"
level = "node"

[network]
k = 4

[[steps]]
do = "join"
over_s = 20

[[steps]]
do = "wait"
s = 10

[[steps]]
do = "lookups"
count = 20
over_s = 20
"""

TALK = """
question = "?"
level = "peer"

[[steps]]
do = "join"
over_s = 2

[[steps]]
do = "messages"
count = 4
over_s = 2

[[steps]]
do = "leave"
share = 1
"""


class Watcher(Recorder):
    """A recorder that keeps beside its lines all that there was."""

    def __init__(self, *, host: int | None = None, lookup: int | None = None) -> None:
        super().__init__(host=host, lookup=lookup)
        self.all: list[Seen] = []

    def on_seen(self, seen: Seen) -> None:
        self.all.append(seen)
        super().on_seen(seen)

    def lookups(self) -> dict[int, tuple[int, bytes, str]]:
        """Number → host, key, and the words of its end."""
        said = [(seen.host, seen.data.decode().split(" ", 2)) for seen in self.all if seen.kind == "lookup"]
        ends = {int(number): rest for _, (number, word, rest) in said if word == "ends"}
        return {
            int(number): (host, bytes.fromhex(rest), ends[int(number)])
            for host, (number, word, rest) in said
            if word == "begins"
        }


def options(text: str, peers: int, crypto: str = "real") -> Options:
    scenario: Scenario = read_scenario(text, "town.toml")
    return Options("town", "town.toml", scenario, peers, level=scenario.level, crypto=crypto)  # type: ignore[arg-type]


@functools.cache
def replayed(
    *, text: str = TOWN, peers: int = 30, crypto: str = "real", host: int | None = None, lookup: int | None = None
) -> tuple[Watcher, Run]:
    watcher = Watcher(host=host, lookup=lookup)
    return watcher, simulate(options(text, peers, crypto), recorder=watcher)


def lookup_that_asks(watcher: Watcher) -> int:
    """The number of a lookup that left its node."""
    return next(number for number, (_, _, end) in watcher.lookups().items() if "own store" not in end)


def said(lines: list[Line], kind: str) -> list[Line]:
    return [line for line in lines if line.what == kind]


# --- one lookup ---


def test_a_lookup_is_shown_with_its_requests_and_answers_in_order() -> None:
    number = lookup_that_asks(replayed(lookup=1)[0])
    watcher, _ = replayed(lookup=number)
    host, key, end = watcher.lookups()[number]
    lines = watcher.lines
    assert lines[0][1:3] == (host, "lookup")
    assert lines[0].words == f"{number} begins {key.hex()}"
    assert {line.host for line in lines} == {host}
    assert all(one.at_s <= two.at_s for one, two in pairwise(lines))

    (at,) = [at for at, line in enumerate(lines) if line.words == f"{number} ends {end}"]
    asked = said(lines[:at], "sent")
    found = re.search(r"(\d+) requests", end)
    assert found is not None
    assert len(asked) == int(found[1]) > 0
    assert all(line.words.startswith(f"FIND_VALUE {key.hex()[:8]} (") for line in asked)
    # Each answer comes after its question, from whom was asked, and one of them has the record.
    answers = said(lines, "arrived")
    assert all(line.words.startswith("FOUND ") for line in answers)
    assert any("a record of" in line.words for line in answers if lines.index(line) < at)
    for answer in answers:
        assert any(
            line.what == "sent" and line.other == answer.other and line.at_s < answer.at_s
            for line in lines[: lines.index(answer)]
        )
    assert len(answers) == len({line.other for line in answers}) == len(said(lines, "sent"))


def test_nothing_of_another_lookup_is_shown() -> None:
    lookups = replayed(lookup=1)[0].lookups()
    for number, (host, key, end) in list(lookups.items())[:5]:
        lines = replayed(lookup=number)[0].lines
        assert [line.words for line in said(lines, "lookup")] == [
            f"{number} begins {key.hex()}",
            f"{number} ends {end}",
        ]
        assert {line.host for line in lines} == {host}
        assert all(line.words.startswith(f"FIND_VALUE {key.hex()[:8]}") for line in said(lines, "sent"))
        if "own store" in end:
            assert len(lines) == 2


def test_a_lookup_that_never_was_has_no_lines() -> None:
    assert replayed(lookup=9999)[0].lines == []


# --- one host ---


def test_a_host_is_shown_from_its_coming_on() -> None:
    watcher, _ = replayed(host=29)
    lines = watcher.lines
    kinds = [line.what for line in lines]
    # It asks before it is told anything; then it publishes, and is in.
    assert lines[0].what == "sent"
    assert lines[0].words.startswith("FIND_NODE ")
    assert kinds.index("sent") < kinds.index("arrived") < kinds.index("published") < kinds.index("joined")
    (joined,) = said(lines, "joined")
    before = lines[: lines.index(joined)]
    words = [line.words.split(" ")[0] for line in before if line.what == "sent"]
    assert words.index("FIND_NODE") < words.index("STORE")
    assert any(line.words.startswith("STORED stored") for line in said(before, "arrived"))


def test_nothing_of_another_host_is_shown_and_nothing_of_this_one_is_left_out() -> None:
    watcher, _ = replayed(host=29)
    own = [(seen.at_s, seen.host, seen.kind, seen.other) for seen in watcher.all if seen.host == 29]
    assert [line[:4] for line in watcher.lines] == own
    assert len(own) < len(watcher.all) / 5


def test_a_host_that_never_was_has_no_lines() -> None:
    assert replayed(host=999)[0].lines == []


def test_frames_and_events_of_a_peer_are_shown() -> None:
    watcher, run = replayed(text=TALK, peers=3, host=2)
    assert run.summary.messages.delivered == 4
    kinds = [line.what for line in watcher.lines]
    assert {"sent", "arrived", "frame", "published", "joined", "leaves"} <= set(kinds)
    assert kinds.index("joined") < kinds.index("leaves")
    assert all(re.fullmatch(r"a frame of \d+ B", line.words) for line in said(watcher.lines, "frame"))


# --- contents ---


@pytest.mark.parametrize("crypto", ["real", "off"])
def test_contents_can_be_read(crypto: str) -> None:
    watcher, _ = replayed(host=29, crypto=crypto)
    datagrams = [line for line in watcher.lines if line.what in ("sent", "arrived")]
    assert len(datagrams) > 50
    known = r"(PING|PONG|FIND_NODE|FIND_VALUE|STORE|FOUND|STORED|NEED_COOKIE|REFUSED)\b.* \(\d+ B\)"
    assert [line.words for line in datagrams if not re.fullmatch(known, line.words)] == []


def test_with_real_crypto_the_datagrams_themselves_are_sealed() -> None:
    def legible(crypto: str) -> int:
        watcher, _ = replayed(lookup=1, crypto=crypto)
        keys = [key for _, key, _ in watcher.lookups().values()]
        return sum(any(key in seen.data for key in keys) for seen in watcher.all if seen.kind == "sent")

    assert legible("real") == 0
    assert legible("off") > 0


def test_whoever_looks_on_changes_nothing() -> None:
    digests = {replayed(host=29)[1].summary.trace_digest, replayed(lookup=1)[1].summary.trace_digest}
    assert digests == {simulate(options(TOWN, 30)).summary.trace_digest}


# --- the recorder alone ---


def test_what_nobody_heard_sealed_is_shown_by_its_size() -> None:
    recorder = Recorder(host=1)
    recorder.on_seen(Seen(1.0, "sent", 1, 2, bytes(99)))
    recorder.on_seen(Seen(2.0, "arrived", 1, 2, b""))
    recorder.on_seen(Seen(3.0, "lost", 2, 1, bytes(99)))
    assert recorder.lines == [Line(1.0, 1, "sent", 2, "99 B"), Line(2.0, 1, "arrived", 2, "0 B")]


def test_lines_are_bounded_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atonce_sim.replay, "_MAX_LINES", 3)
    recorder = Recorder(host=1)
    for number in range(5):
        recorder.on_seen(Seen(float(number), "joined", 1, -1, b"in"))
    assert [line.at_s for line in recorder.lines] == [0, 1, 2]
    assert recorder.left_out == 2


def test_another_lookup_of_the_same_host_for_the_same_key_is_another_lookup() -> None:
    key, recorder = b"k" * 20, Recorder(lookup=1)
    cipher = recorder.cipher(PassThrough())(node_key(1), LOCAL.network_id, 16)

    def begins(number: int, host: int) -> None:
        recorder.on_seen(Seen(float(number), "lookup", host, -1, f"{number} begins {key.hex()}".encode()))

    def passes(kind: str, number: int, message: FindValue | Found) -> None:
        body, nonce = encode(message), bytes([number]) * 24
        content = bytes([0x01 if isinstance(message, FindValue) else 0x02]) + len(body).to_bytes(2, "big") + body
        datagram = bytes(34) + nonce + cipher.seal(content, nonce, node_key(2).public)
        recorder.on_seen(Seen(float(number), kind, 7, 9, datagram))

    def asks(request_id: bytes) -> FindValue:
        return FindValue(0, request_id, 0, key, 1)

    def answers(request_id: bytes) -> Found:
        return Found(0, request_id, 0, b"", bytes(6), 0, [], [], b"")

    passes("sent", 0, asks(b"too soon"))
    begins(1, host=7)
    passes("sent", 2, asks(b"the ours"))
    passes("arrived", 3, asks(b"somebody"))
    begins(4, host=8)
    passes("lost", 5, asks(b"ours too"))
    begins(6, host=7)
    passes("sent", 7, asks(b"its ours"))
    passes("arrived", 8, answers(b"the ours"))
    passes("arrived", 9, answers(b"its ours"))
    recorder.on_seen(Seen(10.0, "lookup", 7, -1, b"1 ends correct"))
    assert [line.at_s for line in recorder.lines] == [1, 2, 5, 8, 10]
