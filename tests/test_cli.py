"""The command as its users have it: real processes, what they print, and how they end when all is well."""

import base64
import re
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import Member, Net, Process, at_once, atonce, net, peer, seed, split, until

from dht_atonce.endpoints import SeedUrl, is_local
from dht_atonce.identity import PeerId

pytestmark = pytest.mark.process

COMMANDS = [
    "seed",
    "join",
    "lookup",
    "send",
    "push",
    "pull",
    "notify",
    "listen",
    "status",
    "demo",
    "contacts",
    "id",
    "id new",
    "id show",
]
NOBODY = "56l7qztzhlof3yprjbo24yrwd2epjry3egrwf7qbu7yiu666hfxz7hyb"
BINARY = bytes(range(256)) * 8  # no text in any encoding; newlines, zero bytes and ends of files included


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """A seed, alice and bob; no test ends one of them."""
    with net(tmp_path_factory.mktemp("net")) as made:
        yield made


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


# --- help and version ---


def test_version_and_help() -> None:
    version, plain, *helps = at_once(
        lambda: atonce("--version"),
        lambda: atonce(),
        *(lambda words=words: atonce(*words.split(), "--help") for words in ["", *COMMANDS]),
    )
    assert re.fullmatch(r"atonce \d+\.\d+\.\d+\n", version.text)
    assert (version.code, version.err) == (0, "")
    # Without a command there is nothing to do: the same help, but no success.
    assert (plain.code, plain.text) == (2, helps[0].text)
    for words, shown in zip(["", *COMMANDS], helps, strict=True):
        assert (shown.code, shown.err) == (0, ""), words
        assert shown.text.startswith(f"Usage: {' '.join(['atonce', *words.split()])} ")
        assert max(map(len, shown.text.splitlines())) <= 80, words
    assert all(f"\n  {words} " in helps[0].text for words in COMMANDS if " " not in words)


# --- identities ---


def test_id(tmp_path: Path) -> None:
    first, second, named = tmp_path / "first", tmp_path / "second", tmp_path / "deep" / "down" / "third"
    new, new_json, deep, unknown = at_once(
        lambda: atonce("id", "new", "--profile", first),
        lambda: atonce("id", "new", "--profile", second, "--json"),
        lambda: atonce("id", "new", "--profile", named),
        lambda: atonce("id", "show", "--profile", tmp_path / "nowhere"),
    )
    assert str(PeerId.parse(new.text)) == new.text.strip()
    assert new_json.object == {"peer": str(PeerId.parse(new_json.object["peer"])), "profile": str(second)}
    assert len({new.text.strip(), new_json.object["peer"], deep.text.strip()}) == 3
    assert "id new" in unknown.error
    assert not (tmp_path / "nowhere").exists()
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    assert stat.S_IMODE((first / "identity.key").stat().st_mode) == 0o600

    shown, shown_json, again = at_once(
        lambda: atonce("id", "show", "--profile", first),
        lambda: atonce("id", "show", "--profile", second, "--json"),
        lambda: atonce("id", "new", "--profile", first),
    )
    assert (shown.code, shown.text) == (0, new.text)
    assert shown_json.object == new_json.object
    assert "id show" in again.error
    assert atonce("id", "show", "--profile", first).text == new.text


def test_a_tilde_in_an_option_is_the_home_folder(tmp_path: Path) -> None:
    # A shell expands `--profile ~/alice` and leaves `--profile=~/alice` as it is.
    env = {"HOME": str(tmp_path)}
    assert atonce("id", "new", "--profile=~/alice", env=env).code == 0
    assert (tmp_path / "alice" / "identity.key").exists()


# --- seed and join ---


def test_a_seed_tells_its_url_first(tmp_path: Path, running: Net) -> None:
    with Process("seed", "--local", "--listen", "127.0.0.1", "--profile", tmp_path / "seed") as process:
        lines = [process.line().decode().strip() for _ in range(3)]
        url = SeedUrl.parse(lines[1])
        assert url.host == "127.0.0.1"
        assert "--profile" not in lines[1]
        assert str(tmp_path / "seed") in lines[2]
    said = running.seed.said
    assert str(SeedUrl.parse(said["url"])) == said["url"]
    assert split(said["tcp"]) == ("127.0.0.1", SeedUrl.parse(said["url"]).port)
    assert [split(address)[0] for address in said["udp"]] == ["127.0.0.1"]


def test_the_host_in_the_url_is_what_newcomers_can_use(tmp_path: Path) -> None:
    with (
        seed(tmp_path / "named", "--public-host", "seed.example", "--port", "0") as named,
        seed(tmp_path / "new", "--public-host", "2001:db8::1") as numbered,
        Process("seed", "--json", "--profile", tmp_path / "anywhere") as anywhere,
    ):
        assert SeedUrl.parse(named.url).host == "seed.example"
        assert SeedUrl.parse(numbered.url).host == "2001:db8::1"
        host = SeedUrl.parse(anywhere.event("seed")["url"]).host
        assert host not in ("0.0.0.0", "::")
        # A network that is not local and a seed that only its neighbours reach: most likely an oversight.
        if is_local(host):
            assert "add --public-host, or --local" in anywhere.event("warning")["message"]


def test_a_peer_tells_what_happens(tmp_path: Path) -> None:
    with (
        seed(tmp_path / "seed") as entry,
        peer(tmp_path / "bob", entry.url) as bob,
        Process("join", "--seed", entry.url, "--listen", "127.0.0.1", "--profile", tmp_path / "carol") as carol,
    ):
        shown = [carol.line().decode().strip() for _ in range(5)]
        assert shown[0].startswith("listening: UDP 127.0.0.1:")
        assert shown[1] == "in the network by seed: 1 node answered"
        assert shown[2] == "published: 1 of 1 node confirmed"
        carol_id = shown[3].removeprefix("this peer is ")
        assert str(PeerId.parse(carol_id)) == carol_id
        assert str(tmp_path / "carol") in shown[4]

        # A stranger's words are shown, and neither obeyed by the terminal nor taken for ours.
        data = b"two [red]lines\nin the network by \x1b[31mmagic\x07"
        sent = bob.ask("send", peer=carol_id, data=base64.b64encode(data).decode())
        assert sent["ok"], sent
        assert carol.line().decode() == f"{bob.id[:8]}… two [red]lines\n"
        assert carol.line().decode() == "          in the network by \\x1b[31mmagic\\x07\n"
        carol.signal(signal.SIGTERM)
        ended = carol.ends()
    assert (ended.code, ended.err) == (0, "")
    assert ended.text.endswith("\nsaying goodbye\n")


def test_events_of_a_peer_are_json_lines(tmp_path: Path) -> None:
    with net(tmp_path) as (_, alice, bob):
        alice.ask("send", peer=bob.id, data=base64.b64encode(BINARY).decode())
        message = bob.process.event("message")
        assert message["sender"] == alice.id
        assert base64.b64decode(message["data"]) == BINARY
        bob.process.signal(signal.SIGTERM)
        ended = bob.process.ends()
    events = [event["event"] for event in ended.objects]
    assert events[:4] == ["listening", "entered", "published", "ready"]
    assert events[-1] == "leaving"
    assert (ended.code, ended.err) == (0, "")


def test_a_peer_that_speaks_json_never_loads_rich(tmp_path: Path) -> None:
    # Its memory at rest is promised; rich alone takes some megabytes of it.
    lines = ["import sys", "from dht_atonce.cli.main import main"]
    lines += ["try: main()", "finally: print(*sys.modules, file=sys.stderr)"]
    options = ("--alone", "--local", "--listen", "127.0.0.1", "--json", "--profile", tmp_path / "carol")
    with Process("join", *options, command=[sys.executable, "-c", "\n".join(lines)]) as carol:
        carol.event("ready")
        carol.signal(signal.SIGTERM)
        loaded = carol.ends().err.split()
    assert "zmq" in loaded
    assert "rich" not in loaded


# --- lookup ---


def test_lookup(tmp_path: Path, running: Net) -> None:
    alice, bob, url = running.alice, running.bob, running.seed.url
    through, words, fresh, itself, alone, unknown, unknown_json = at_once(
        lambda: atonce("lookup", alice.id, "--profile", bob.profile, "--json"),
        lambda: atonce("lookup", alice.id, "--profile", bob.profile),
        lambda: atonce("lookup", f" {alice.id.upper()} ", "--fresh", "--profile", bob.profile, "--json"),
        lambda: atonce("lookup", bob.id, "--profile", bob.profile, "--json"),
        lambda: atonce("lookup", alice.id, "--seed", url, "--profile", tmp_path / "carol", "--json"),
        lambda: atonce("lookup", NOBODY, "--profile", bob.profile),
        lambda: atonce("lookup", NOBODY, "--profile", bob.profile, "--json"),
    )
    endpoint = f"127.0.0.1:{alice.tcp[1]}"
    for found in (through, fresh, alone):
        record = found.object["record"]
        assert (record["peer"], record["status"], record["endpoints"]) == (alice.id, "online", [endpoint])
        assert found.err == ""
    assert words.text.splitlines()[0] == f"online at {endpoint}"
    assert itself.object["record"]["peer"] == bob.id
    # Who takes part for a moment holds no records, so it had to ask somebody.
    assert not alone.object["local"]
    assert alone.object["requests"] >= 1
    for missing in (unknown, unknown_json):
        assert NOBODY[:8] in missing.error
        assert missing.out == b""


def test_who_takes_part_for_a_moment_leaves_no_trace_in_the_network(tmp_path: Path, running: Net) -> None:
    known = running.alice.status()["known_nodes"]
    guest = tmp_path / "guest"
    made = atonce("id", "new", "--profile", guest, "--json").object
    assert atonce("lookup", running.alice.id, "--seed", running.seed.url, "--profile", guest).code == 0
    assert atonce("lookup", made["peer"], "--profile", running.bob.profile).error
    assert running.alice.status()["known_nodes"] == known
    # It knows nobody the next time, so it needs the seed again, and says so.
    assert "--seed" in atonce("lookup", running.alice.id, "--profile", guest).error


# --- send ---


def test_send(tmp_path: Path, running: Net) -> None:
    alice, bob, url = running.alice, running.bob, running.seed.url
    carol, largest = tmp_path / "carol", b"x" * 60_000
    message = tmp_path / "message"
    message.write_bytes(BINARY)
    with message.open("rb") as file:
        words, as_json, stdin, binary, from_file, large, too_large, too_large_json, alone = at_once(
            lambda: atonce("send", alice.id, "héllo", "--profile", bob.profile),
            lambda: atonce("send", alice.id, "hello", "--profile", bob.profile, "--json"),
            lambda: atonce("send", alice.id, "--profile", bob.profile, data=b"from stdin\n"),
            lambda: atonce("send", alice.id, "--profile", bob.profile, "--json", data=BINARY),
            lambda: atonce("send", alice.id, "--profile", bob.profile, stdin=file),
            lambda: atonce("send", alice.id, "--profile", bob.profile, data=largest),
            lambda: atonce("send", alice.id, "--profile", bob.profile, data=largest + b"y"),
            lambda: atonce("send", alice.id, "--profile", bob.profile, "--json", data=largest * 20),
            lambda: atonce("send", alice.id, "hello from carol", "--seed", url, "--profile", carol, "--json"),
        )
    assert re.fullmatch(rf"delivered to {alice.id[:8]}… in \d+\.\d ms\n", words.text)
    for sent in (as_json, binary, alone):
        assert sent.object.keys() == {"delivered", "peer", "elapsed_ms"}
        assert (sent.object["delivered"], sent.object["peer"]) == (True, alice.id)
    for sent in (words, stdin, from_file, large):
        assert (sent.code, sent.err) == (0, "")
    for refused in (too_large, too_large_json):
        assert "60000" in refused.error
        assert refused.out == b""

    came = [alice.process.event("message") for _ in range(7)]
    carol_id = atonce("id", "show", "--profile", carol, "--json").object["peer"]
    assert sorted((event["sender"], base64.b64decode(event["data"])) for event in came) == sorted(
        [
            *((bob.id, data) for data in ("héllo".encode(), b"hello", b"from stdin\n", BINARY, BINARY, largest)),
            (carol_id, b"hello from carol"),
        ]
    )


def test_an_empty_message_is_a_message(running: Net) -> None:
    assert atonce("send", running.alice.id, "--profile", running.bob.profile, data=b"").code == 0
    assert running.alice.process.event("message")["data"] == ""


# --- status ---


def test_status(running: Net) -> None:
    peer_json, peer_words, seed_json, seed_words = at_once(
        lambda: atonce("status", "--profile", running.bob.profile, "--json"),
        lambda: atonce("status", "--profile", running.bob.profile),
        lambda: atonce("status", "--profile", running.seed.profile, "--json"),
        lambda: atonce("status", "--profile", running.seed.profile),
    )
    of_peer, of_seed = peer_json.object, seed_json.object
    assert (of_peer["peer"], of_peer["network"], of_peer["k"]) == (running.bob.id, "atonce", 4)
    assert of_peer["known_nodes"] >= 1
    assert of_peer["counters"]["dht.sent"] > 0
    assert of_seed["url"] == running.seed.url
    assert of_seed["admitted"] >= 2
    # What the seed is for ends with the first contact.
    assert (of_seed["unsolicited_datagrams"], of_seed["returned_messages"]) == (0, 0)
    assert re.search(rf"^peer +{running.bob.id}$", peer_words.text, re.MULTILINE)
    assert re.search(rf"^url +{running.seed.url}$", seed_words.text, re.MULTILINE)


def test_without_a_profile_the_default_ones_are_meant(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    with Process("seed", "--local", "--listen", "127.0.0.1", "--json", env=env) as process:
        said = process.event("seed")
        assert Path(said["profile"]).is_relative_to(tmp_path)
        assert atonce("status", "--json", env=env).object["url"] == said["url"]


# --- IPv4 and IPv6 ---

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6: ::1 cannot be bound")
BOTH = ("127.0.0.1", "::1")


def talk(one: Member, other: Member) -> None:
    """They find each other, and each sends to the other."""
    for sender, receiver in ((one, other), (other, one)):
        assert sender.ask("lookup", peer=receiver.id, fresh=True)["record"]["peer"] == receiver.id
        sent = sender.ask("send", peer=receiver.id, data="aGVsbG8=")
        assert sent["ok"], sent
        assert receiver.process.event("message")["sender"] == sender.id


@needs_ipv6
def test_a_peer_in_both_families_and_one_in_ipv4(tmp_path: Path) -> None:
    with (
        seed(tmp_path / "seed", listen=BOTH) as entry,
        peer(tmp_path / "dual", entry.url, listen=BOTH) as dual,
        peer(tmp_path / "old", entry.url) as old,
    ):
        assert [split(address)[0] for address in dual.status()["endpoints"]] == ["127.0.0.1", "::1"]
        assert [split(address)[0] for address in dual.status()["udp"]] == ["127.0.0.1", "::1"]
        talk(dual, old)


@needs_ipv6
def test_a_peer_in_both_families_and_one_in_each(tmp_path: Path) -> None:
    with (
        seed(tmp_path / "seed", listen=BOTH) as entry,
        peer(tmp_path / "dual", entry.url, listen=BOTH) as dual,
        peer(tmp_path / "old", entry.url) as old,
        peer(tmp_path / "new", str(SeedUrl.parse(entry.url)._replace(host="::1")), listen=["::1"]) as new,
    ):
        talk(dual, old)
        talk(dual, new)
        # Their nodes share no family, and they find each other all the same: the dual peer holds both records.
        until(lambda: old.ask("lookup", peer=new.id)["record"], "the dual peer tells of the other family")
        until(lambda: new.ask("lookup", peer=old.id)["record"], "the dual peer tells of the other family")


@needs_ipv6
def test_a_network_in_ipv6_alone(tmp_path: Path) -> None:
    with seed(tmp_path / "seed", listen=["::1"]) as entry:
        assert entry.url.split("@")[1].startswith("[::1]:")
        with (
            peer(tmp_path / "alice", entry.url, listen=["::1"]) as alice,
            peer(tmp_path / "bob", entry.url, listen=["::1"]) as bob,
        ):
            talk(alice, bob)
            # One that has IPv4 only cannot get in, and is told so.
            old = atonce("join", "--seed", entry.url, "--listen", "127.0.0.1", "--profile", tmp_path / "old")
            assert old.error
