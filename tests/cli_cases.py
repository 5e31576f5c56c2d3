"""What a user may do wrong, and what may be wrong around them: the cases of test_cli_bad_input.py."""

import itertools
import random
import re
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from cli_support import Member, Net

from dht_atonce.endpoints import SeedUrl
from dht_atonce.identity import Identity

STRANGER = str(Identity.generate(random.Random("nobody here")).id)


class Around(NamedTuple):
    """What a case finds: a network, a folder of its own and some listeners that do not answer."""

    net: Net
    folder: Path
    mute_tcp: int
    """A port on 127.0.0.1 that accepts connections and never says anything."""
    closed: int
    """A port on 127.0.0.1 where nobody listens."""
    deaf_seed: SeedUrl
    """A seed whose TCP answers and whose UDP does not."""
    stopped: Member
    """A seed that is stopped, as by Ctrl-Z."""

    @property
    def url(self) -> str:
        return self.net.seed.url

    @property
    def profile(self) -> Path:
        """A good profile of the case's own."""
        return profile(self.folder / "profile")

    def damaged(self, name: str, data: bytes, mode: int = 0o600) -> Path:
        """A profile with this in one of its files."""
        folder = self.profile
        (folder / name).write_bytes(data)
        (folder / name).chmod(mode)
        return folder

    def elsewhere(self, **what: object) -> str:
        """The seed's URL with something changed."""
        return str(SeedUrl.parse(self.url)._replace(**what))  # type: ignore[arg-type]


def profile(folder: Path) -> Path:
    """What `atonce id new` makes."""
    folder.mkdir(mode=0o700)
    key = folder / "identity.key"
    key.write_bytes(random.Random(str(folder)).randbytes(32))
    key.chmod(0o600)
    return folder


def typo(text: str) -> str:
    """`text` with one letter another one."""
    return text[:20] + ("a" if text[20] != "a" else "b") + text[21:]


def join(*args: str | Path) -> list[str | Path]:
    return ["join", "--listen", "127.0.0.1", *args]


def over_url(change: Callable[[str], str]) -> "Make":
    return lambda a: join("--profile", a.folder / "new", "--seed", change(a.url))


Make = Callable[[Around], list[str | Path]]


def open_to_others(folder: Path) -> Path:
    folder.chmod(0o755)
    return folder


def with_folder(folder: Path, name: str) -> Path:
    folder.mkdir(mode=0o700)
    (folder / name).mkdir(mode=0o700)
    return folder


def new_seed(around: Around, *args: str | Path) -> list[str | Path]:
    return ["seed", "--local", "--listen", "127.0.0.1", "--profile", around.profile, *args]


# What is done, and what the one line says of it. Each begins from a good state.
CASES: dict[str, tuple[Make, str]] = {
    # the profile
    "identity.key is empty": (
        lambda a: join("--profile", a.damaged("identity.key", b""), "--seed", a.url),
        "identity.key is damaged.*restore it from a backup",
    ),
    "identity.key has 31 bytes": (
        lambda a: join("--profile", a.damaged("identity.key", b"x" * 31), "--seed", a.url),
        "identity.key is damaged.*31 bytes.*restore it from a backup",
    ),
    "identity.key is damaged, shown": (
        lambda a: ["id", "show", "--profile", a.damaged("identity.key", b"x" * 31)],
        "damaged; restore identity.key from a backup",
    ),
    "identity.key is damaged, seed": (
        lambda a: ["seed", "--local", "--profile", a.damaged("identity.key", b"x" * 33)],
        "identity.key is damaged.*restore it from a backup",
    ),
    "identity.key can be read by others": (
        lambda a: join("--profile", a.damaged("identity.key", b"x" * 32, 0o644), "--seed", a.url),
        r"can be read by others; run: chmod 600 \S*/identity.key$",
    ),
    "identity.key is a folder": (
        # What cannot be read: a file without the right to would be read all the same by root.
        lambda a: join("--profile", with_folder(a.folder / "profile", "identity.key"), "--seed", a.url),
        "identity.key cannot be read: Is a directory",
    ),
    "node.key is damaged": (
        lambda a: join("--profile", a.damaged("node.key", b"x"), "--seed", a.url),
        "node.key is damaged.*delete it",
    ),
    "node.key can be read by others": (
        lambda a: join("--profile", a.damaged("node.key", b"x" * 32, 0o640), "--seed", a.url),
        r"can be read by others; run: chmod 600 \S*/node.key$",
    ),
    "state is damaged": (
        lambda a: join("--profile", a.damaged("state", b"\xc1 no msgpack"), "--seed", a.url),
        "'state' is damaged; delete it",
    ),
    "state is damaged, lookup": (
        lambda a: ["lookup", a.net.alice.id, "--profile", a.damaged("state", b"")],
        "'state' is damaged; delete it",
    ),
    "state is too large": (
        lambda a: join("--profile", a.damaged("state", bytes(1 << 21)), "--seed", a.url),
        "larger than .* not a file of ours",
    ),
    "the folder can be entered by others": (
        lambda a: join("--profile", open_to_others(a.profile), "--seed", a.url),
        r"can be entered by others; run: chmod 700 \S*/profile$",
    ),
    "the folder is a file": (
        lambda a: join("--profile", a.profile / "identity.key", "--seed", a.url),
        "cannot be used: File exists",
    ),
    "the folder is under a file": (
        lambda a: join("--profile", a.profile / "identity.key" / "below", "--seed", a.url),
        "cannot be used: Not a directory",
    ),
    "the profile is in use, join": (
        lambda a: join("--profile", a.net.alice.profile, "--seed", a.url),
        "another process uses the profile .*; stop it, or name another folder with --profile",
    ),
    "the profile is in use, seed": (
        lambda a: ["seed", "--local", "--listen", "127.0.0.1", "--profile", a.net.alice.profile],
        "another process uses the profile .*; stop it, or name another folder with --profile",
    ),
    "the profile is in use, id new": (
        lambda a: ["id", "new", "--profile", a.net.alice.profile],
        "another process uses the profile .*; stop it, or name another folder with --profile",
    ),
    "no profile, lookup": (
        lambda a: ["lookup", a.net.alice.id, "--profile", a.folder / "typo"],
        "has not been in a network yet; name a seed with --seed URL",
    ),
    "nothing runs, status": (
        lambda a: ["status", "--profile", a.profile],
        "nothing runs with the profile .*; see: atonce join --help",
    ),
    "what runs is stopped, status": (
        lambda a: ["status", "--profile", a.stopped.profile],
        "has not answered within 5 s; if it is stuck, end it",
    ),
    # the way in
    "no seed": (
        lambda a: join("--profile", a.profile),
        "has not been in a network yet; name a seed with --seed URL",
    ),
    "the seed has another key": (
        over_url(lambda url: str(SeedUrl.parse(url)._replace(peer_id=Identity.generate(random.Random(1)).id))),
        "another key than its seed URL says; check the URL with its operator",
    ),
    "the seed's name is not known": (
        over_url(lambda url: str(SeedUrl.parse(url)._replace(host="name.invalid", port=4710))),
        "the name name.invalid is not known; check it",
    ),
    "nobody listens": (
        lambda a: join("--profile", a.profile, "--seed", a.elsewhere(port=a.closed)),
        "nobody listens at .* see that the seed runs",
    ),
    "the seed is mute": (
        lambda a: join("--profile", a.profile, "--seed", a.elsewhere(port=a.mute_tcp)),
        "did not answer within 5 s.* see that the seed runs",
    ),
    "the seed is mute, lookup": (
        lambda a: ["lookup", a.net.bob.id, "--profile", a.profile, "--seed", a.elsewhere(port=a.mute_tcp)],
        "did not answer within 5 s.* see that the seed runs",
    ),
    "the seed is deaf by UDP": (
        lambda a: join("--profile", a.profile, "--seed", str(a.deaf_seed)),
        "does not answer by UDP; a firewall may be in the way",
    ),
    "a peer in place of a seed": (
        lambda a: join("--profile", a.profile, "--seed", f"atonce://{a.net.bob.id}@127.0.0.1:{a.net.bob.tcp[1]}"),
        "the seed's answer cannot be read; is it of a newer version",
    ),
    "another network": (
        lambda a: join("--profile", a.profile, "--seed", a.url, "--network", "other"),
        "serves the network 'atonce'; leave out --network, or",
    ),
    "a network without a name": (
        lambda a: join("--profile", a.profile, "--seed", a.url, "--network", ""),
        "a network's name has 1 to 64 bytes; see: atonce join --help",
    ),
    "every way at once": (
        lambda a: join(
            *("--profile", a.profile, "--seed", a.elsewhere(port=a.closed), "--seed", a.elsewhere(host="name.invalid"))
        ),
        "nobody listens at .*name.invalid is not known|name.invalid is not known.*nobody listens at",
    ),
    # seed URLs
    "seed URL: a typo in the key": (
        over_url(lambda url: typo(url)),
        "the seed URL's key is wrong: .*typo",
    ),
    "seed URL: another scheme": (over_url(lambda url: url.replace("atonce", "http")), "begin with atonce://"),
    "seed URL: no scheme": (over_url(lambda url: url.partition("//")[2]), "begin with atonce://"),
    "seed URL: no key": (over_url(lambda url: "atonce://" + url.partition("@")[2]), "this has no PeerId"),
    "seed URL: no host": (over_url(lambda url: re.sub("@.*:", "@:", url)), "this has no host"),
    "seed URL: no port": (over_url(lambda url: url.rpartition(":")[0]), "this has no port"),
    "seed URL: port 0": (over_url(lambda url: url.rpartition(":")[0] + ":0"), "this has no port"),
    "seed URL: port 65536": (over_url(lambda url: url.rpartition(":")[0] + ":65536"), "(?i)port out of range"),
    "seed URL: a path": (over_url(lambda url: url + "/path"), "nothing follows the port"),
    "seed URL: empty": (over_url(lambda url: ""), "a seed URL looks like atonce://PEERID@HOST:PORT"),
    "seed URL: two lines": (over_url(lambda url: f"{url}\n{url}"), "a seed URL looks like atonce://PEERID@HOST:PORT"),
    # ports and addresses
    "TCP port in use, join": (
        lambda a: join("--profile", a.profile, "--seed", a.url, "--port", str(a.net.alice.tcp[1])),
        r"TCP 127.0.0.1:\d+ is in use; choose another port",
    ),
    "UDP port in use, join": (
        lambda a: join("--profile", a.profile, "--seed", a.url, "--udp-port", str(a.net.alice.udp[1])),
        r"UDP 127.0.0.1:\d+ is in use; choose another port",
    ),
    "TCP port in use, seed": (
        lambda a: new_seed(a, "--port", str(a.net.seed.tcp[1])),
        r"TCP 127.0.0.1:\d+ is in use; choose another port",
    ),
    "UDP port in use, seed": (
        lambda a: new_seed(a, "--udp-port", str(a.net.seed.udp[1])),
        r"UDP 127.0.0.1:\d+ is in use; choose another port",
    ),
    "port 65536": (lambda a: new_seed(a, "--port", "65536"), "(?i)65535.*; see: atonce seed --help"),
    "a port that is no number": (lambda a: new_seed(a, "--port", "http"), "--port.*; see: atonce seed --help"),
    "a port that peers do not ask": (
        lambda a: join("--profile", a.profile, "--seed", a.url, "--udp-port", "80"),
        "below 1024; choose another --udp-port",
    ),
    "--listen is no address": (
        lambda a: ["join", "--listen", "localhost", "--profile", a.profile, "--seed", a.url],
        "--listen takes an IP address of this machine, and 'localhost' is none",
    ),
    "--listen with a port": (
        lambda a: ["join", "--listen", "127.0.0.1:4710", "--profile", a.profile, "--seed", a.url],
        "the ports go to --port and --udp-port",
    ),
    "--listen is somebody else's address": (
        lambda a: ["join", "--listen", "192.0.2.1", "--profile", a.profile, "--seed", a.url],
        "192.0.2.1.*(no address of this machine|takes an address of this machine)",
    ),
    "--listen twice in a family": (
        lambda a: join("--listen", "127.0.0.2", "--profile", a.profile, "--seed", a.url),
        "--listen takes one address of each family",
    ),
    "a seed on loopback that is not local": (
        lambda a: ["seed", "--listen", "127.0.0.1", "--profile", a.profile],
        "refuse a seed at 127.0.0.1.* add --local",
    ),
    "--public-host with a port": (
        lambda a: new_seed(a, "--public-host", "seed.example:4710"),
        "--public-host takes a name or an address, without a port",
    ),
    # who and what
    "PeerId with a typo, lookup": (
        lambda a: ["lookup", typo(a.net.alice.id), "--profile", a.net.bob.profile],
        "typo",
    ),
    "PeerId with a typo, send": (
        lambda a: ["send", typo(a.net.alice.id), "hello", "--profile", a.net.bob.profile],
        "typo",
    ),
    "half a PeerId": (
        lambda a: ["lookup", a.net.alice.id[:28], "--profile", a.net.bob.profile],
        "a PeerId has 56 characters, this has 28",
    ),
    "PeerId of nobody, lookup": (
        lambda a: ["lookup", STRANGER, "--profile", a.net.bob.profile],
        f"knows no peer {STRANGER[:8]}…; check the PeerId",
    ),
    "PeerId of nobody, send": (
        lambda a: ["send", STRANGER, "hello", "--profile", a.net.bob.profile],
        f"knows no peer {STRANGER[:8]}…; check the PeerId",
    ),
    "a seed is asked to look up": (
        lambda a: ["lookup", a.net.alice.id, "--profile", a.net.seed.profile],
        "this is a seed: .*; use a peer's profile",
    ),
    "a message that is too large": (
        lambda a: ["send", a.net.alice.id, "x" * 60_001, "--profile", a.net.bob.profile],
        "a message has at most 60000 bytes; send it in parts",
    ),
    # the command line
    "no such command": (lambda a: ["jion"], "'jion'.*; see: atonce --help"),
    "no such option": (lambda a: ["join", "--sed", a.url], "--sed.*; see: atonce join --help"),
    "nobody named": (lambda a: ["lookup", "--profile", a.profile], "(?i)missing argument.*; see: atonce lookup --help"),
    "a timeout of nothing": (
        lambda a: ["send", a.net.alice.id, "x", "--timeout", "0", "--profile", a.net.bob.profile],
        "--timeout.*; see: atonce send --help",
    ),
    "--k without --alone": (
        lambda a: join("--k", "4", "--profile", a.profile, "--seed", a.url),
        "--k and --local go with --alone.*; see: atonce join --help",
    ),
    "too few peers for a demo": (lambda a: ["demo", "--peers", "2"], "--peers.*; see: atonce demo --help"),
}

NO_ANSWER = {"what runs is stopped, status", "the seed is mute", "the seed is mute, lookup", "the seed is deaf by UDP"}


# --- those who do not answer ---


def mute_listener(stack: ExitStack) -> int:
    """A port whose backlog takes connections that nobody ever accepts."""
    sock = stack.enter_context(socket.socket())
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    return int(sock.getsockname()[1])


def closed_port(stack: ExitStack) -> int:
    """A port that nobody listens at, nor will: it is bound, and that is all."""
    sock = stack.enter_context(socket.socket())
    sock.bind(("127.0.0.1", 0))
    return int(sock.getsockname()[1])


def deaf_seed(real: Member, stack: ExitStack) -> SeedUrl:
    """The real seed's TCP at another address, where a socket that nobody reads has its UDP port."""
    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind(("127.0.0.2", real.udp[1]))
    front = stack.enter_context(socket.create_server(("127.0.0.2", 0)))

    def splice(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError), one, other:
            while data := one.recv(4096):
                other.sendall(data)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = front.accept()
                back = socket.create_connection(real.tcp)
                for pair in itertools.permutations((client, back)):
                    threading.Thread(target=splice, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    stack.callback(front.shutdown, socket.SHUT_RDWR)
    return SeedUrl.parse(real.url)._replace(host="127.0.0.2", port=front.getsockname()[1])
