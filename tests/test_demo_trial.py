"""The demo's trial: in a good network all holds, and each promise that is broken is noticed."""

import socket
from collections.abc import Callable
from typing import Any

import pytest
from demo_support import PHASES, FakeNetwork, FakePeer, Silence, trial_of

from dht_atonce.cli import demo_trial
from dht_atonce.cli.control import Request, Status
from dht_atonce.cli.demo_trial import Trial
from dht_atonce.errors import ControlError, PeerOffline


async def test_a_good_network_holds() -> None:
    trial = await trial_of(FakeNetwork())
    assert trial.held, trial.problems
    assert [phase.name for phase in trial.phases] == PHASES
    assert all(phase.right == phase.asked == phase.done for phase in trial.phases)
    assert trial.to_seed == {"datagrams": 0, "messages": 0}


def test_a_trial_of_which_nothing_was_done_does_not_hold() -> None:
    assert not Trial(FakeNetwork(), Silence()).held


# --- each promise, broken ---


def another(network: FakeNetwork) -> None:
    network.lookup = lambda asker, wanted: {
        "record": {"peer": asker.id, "status": "online"},
        "local": False,
        "elapsed_ms": 1.0,
    }


def no_record(network: FakeNetwork) -> None:
    network.lookup = lambda asker, wanted: {"record": None, "local": False, "elapsed_ms": 1.0}


def goodbye(network: FakeNetwork) -> None:
    good = network.lookup
    gone = {"record": {"peer": "peer-3", "status": "gone"}}
    network.lookup = lambda asker, wanted: good(asker, wanted) | (gone if wanted == "peer-3" else {})


def all_local(network: FakeNetwork) -> None:
    good = network.lookup
    network.lookup = lambda asker, wanted: good(asker, wanted) | {"local": True}


def dead(network: FakeNetwork) -> None:
    def lookup(asker: FakePeer, wanted: str) -> dict[str, Any]:
        raise ControlError("the running process ended before it answered")

    network.lookup = lookup


def unreachable(network: FakeNetwork) -> None:
    def deliver(to: str, data: bytes) -> None:
        raise PeerOffline("it does not answer")

    network.deliver = deliver


def delivering(how: Callable[[bytes], list[bytes]]) -> Callable[[FakeNetwork], None]:
    def change(network: FakeNetwork) -> None:
        good = network.deliver

        def deliver(to: str, data: bytes) -> None:
            for each in how(data) if to == "peer-5" else [data]:
                good(to, each)

        network.deliver = deliver

    return change


def restarting(change: Callable[[FakePeer], None]) -> Callable[[FakeNetwork], None]:
    return lambda network: setattr(network, "on_restart", change)


def seed_status(**status: int) -> Callable[[FakeNetwork], None]:
    return lambda network: setattr(network.seed, "status", status)


def fails_to_start(network: FakeNetwork) -> None:
    def on_restart(peer: FakePeer) -> None:
        raise ControlError("peer-1 ended: no word why")

    network.on_restart = on_restart


BROKEN: dict[str, tuple[Callable[[FakeNetwork], None], str]] = {
    "another record is found": (another, "did not find"),
    "no record is found": (no_record, "did not find"),
    "a goodbye is found": (goodbye, "did not find peer-3"),
    "nobody has to be asked": (all_local, "every record was in the asker's own store"),
    "a process is dead": (dead, "ended before it answered"),
    "a peer cannot be reached": (unreachable, "it does not answer"),
    "messages are lost": (delivering(lambda data: []), "never reached the app of peer-5"),
    "messages are doubled": (delivering(lambda data: [data, data]), "got a message too many"),
    "messages are changed": (delivering(lambda data: [data + b"!"]), "got a message too many"),
    "somebody else comes back": (restarting(lambda peer: setattr(peer, "id", "peer-0")), "came back by saved contacts"),
    "it comes back by a seed": (restarting(lambda peer: setattr(peer, "came_by", "seed")), "came back by seed"),
    "it does not come back": (fails_to_start, "no word why"),
    "datagrams went to the seed": (seed_status(unsolicited_datagrams=1), "1 datagrams went to the seed"),
    "datagrams may yet explain themselves": (seed_status(pending_datagrams=2), "2 datagrams went to the seed"),
    "a peer returned to the seed": (seed_status(returned_messages=3), "3 messages went to the seed"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_broken_promise_is_noticed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_trial, "_PRINTED_S", 0.05)
    change, problem = BROKEN[what]
    network = FakeNetwork()
    change(network)
    trial = await trial_of(network)
    assert not trial.held
    assert any(problem in each for each in trial.problems), trial.problems


async def test_contacts_that_are_never_saved_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(peer: FakePeer, request: Request) -> dict[str, Any]:
        return {"saved_contacts": 0} if isinstance(request, Status) else await good(peer, request)

    good = FakePeer.ask
    monkeypatch.setattr(FakePeer, "ask", ask)
    monkeypatch.setattr(demo_trial, "_SAVE_LOOKS", 2)
    trial = await trial_of(FakeNetwork())
    assert not trial.held
    assert "saved no contacts" in trial.problems[0]


async def test_who_calls_at_the_dead_seeds_ports_is_counted() -> None:
    network = FakeNetwork()
    trial = Trial(network, Silence())
    await trial.run(8, 5, 5)
    assert network.grave is not None
    tcp, udp = network.grave.addresses
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, socket.create_connection(tcp):
        for _ in range(3):
            sock.sendto(b"hello?", udp)
        trial.look_back()
    assert trial.to_seed == {"datagrams": 3, "messages": 1}
    assert not trial.held
