"""A few thousand bad inputs for each parser, and whether the fuzzer would notice. `make fuzz` goes on for longer."""

import contextlib
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # `fuzz` is not installed

from dht_atonce.codec import encode
from dht_atonce.dht.contact import Contact, unpack_contact
from dht_atonce.dht.sealing import PacketType
from dht_atonce.endpoints import Address, Family, unpack_address
from dht_atonce.errors import WireError
from dht_atonce.messaging import frames
from fuzz import forgery, links, runner, targets
from fuzz.mutation import MAX_INPUT, Mutator

INPUTS = 400
"""For each target."""


@pytest.mark.parametrize("name", targets.TARGETS)
def test_no_input_raises(name: str) -> None:
    outcome = runner.run(name, seed=1, time_s=60, max_inputs=INPUTS)
    assert outcome.found == []
    assert outcome.inputs == INPUTS


def test_the_mutants_are_the_same_for_a_seed_and_differ_from_what_they_are_made_of() -> None:
    target = targets.make("request")
    target.close()
    corpus = target.corpus

    def mutants(seed: int) -> list[bytes]:
        mutator = Mutator(random.Random(seed), corpus)
        return [mutator.next() for _ in range(500)]

    assert mutants(1) == mutants(1) != mutants(2)
    assert len(set(mutants(1))) > 350
    assert sum(mutant in corpus for mutant in mutants(1)) < 50
    assert max(map(len, mutants(1))) <= MAX_INPUT


def test_inputs_reach_what_lies_behind_the_first_check() -> None:
    """Else a target that drops everything would look like a good one."""
    with contextlib.closing(targets.FuzzedNode()) as node:
        for request in targets.REQUESTS:
            datagram = node.seal(PacketType.REQUEST, encode(request), proved=True)
            assert datagram is not None
            node.receive(datagram)
        counters = node.node.counters
        assert (counters["dht.answered"], counters["dht.stored"]) == (4, 1)


def test_frames_reach_what_lies_behind_a_link() -> None:
    with contextlib.closing(links.FuzzedMessenger()) as fed:
        target = targets.make("link")
        target.close()
        for frame in target.corpus * 3:
            fed.feed(frame)
        counters = fed.messenger.counters
        for name in ("messaging.received", "messaging.delivered", "messaging.unknown_kind", "calls.served"):
            assert counters[name] > 3, name


def careless_frame(data: bytes) -> frames.Frame:
    """Like `read_frame`, but for one number that it cannot count."""
    frame = frames.read_frame(data)
    if frame.ack == (1 << 63) - 1:
        raise IndexError("index out of range")
    return frame


def careless_address(data: bytes) -> Address:
    """Like `unpack_address`, but for the error with which it refuses a length."""
    if len(data) not in (6, 18):
        raise IndexError("index out of range")
    return unpack_address(data)


def careless_contacts(raw: list[bytes], family: Family, *, local: bool) -> list[Contact]:
    """Like `unpack_contacts`, but one that is none is the end of all."""
    return [unpack_contact(data, family, local=local) for data in raw]


@pytest.mark.parametrize(
    ("name", "where", "careless"),
    [
        ("signed-record", "dht_atonce.records.record.unpack_address", careless_address),
        ("state", "dht_atonce.profile.unpack_address", careless_address),
        ("reply", "dht_atonce.dht.crawl.unpack_contacts", careless_contacts),
        ("link", "dht_atonce.messaging.linking.read_frame", careless_frame),
    ],
)
def test_a_careless_parser_is_found_out(
    name: str, where: str, careless: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with one mistake put in, the input that shows it is found, saved and replayed."""
    with monkeypatch.context() as patch:
        patch.setattr(where, careless)
        outcome = runner.run(name, seed=1, time_s=60, max_inputs=5000, max_found=1)
        assert len(outcome.found) == 1
        (path,) = runner.save(outcome.found, name, tmp_path)
        with pytest.raises((IndexError, WireError)):
            runner.replay(path)
    runner.replay(path)  # and mended, it raises no more


def test_a_file_of_no_target_is_not_replayed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the name of a target"):
        runner.replay(tmp_path / "novelty-0.bin")


def test_no_forgery_is_believed_and_without_the_check_most_are() -> None:
    real, control = forgery.run(2000, 1), forgery.run(2000, 1, checks_signatures=False)
    assert (real.accepted, real.first_accepted) == (0, None)
    assert control.accepted > 1000
    assert real.refused["bad_signature"] > 1000
