"""The pure machines of rooms, each alone: authors, the tree, the views, the queue of events, and the wire."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_peers import identity

from dht_atonce.config import RoomsConfig
from dht_atonce.errors import WireError
from dht_atonce.rooms.authors import Authors, Gap, Given
from dht_atonce.rooms.events import Entered, EventQueue, Missed, RoomEvent, Said, Whispered
from dht_atonce.rooms.history import History
from dht_atonce.rooms.hyparview import HyParView
from dht_atonce.rooms.outbox import Outbox
from dht_atonce.rooms.plumtree import Plumtree
from dht_atonce.rooms.roster import Change, Roster
from dht_atonce.rooms.wire import (
    Disconnect,
    Entry,
    ForwardJoin,
    Neighbour,
    NeighbourReply,
    Shuffle,
    ShuffleReply,
    Statement,
    Stream,
    here_data,
    read_message,
)

CONFIG = RoomsConfig()
ANN, BEN = b"a" * 32, b"b" * 32
ROOM = bytes(20)


def shout(seq: int, session: int = 2, author: bytes = ANN) -> Statement:
    return Statement(author, session, Stream.SHOUT, seq, b"%d" % seq, bytes(64))


def here(version: int, session: int = 2, name: str = "", author: bytes = ANN) -> Statement:
    return Statement(author, session, Stream.HERE, version, here_data(0, name), bytes(64))


# --- authors ---


@given(st.permutations(range(1, 15)), st.sets(st.integers(1, 14)), st.integers(0, 13))
def test_shouts_come_in_order_once_and_gaps_are_told(order: list[int], lost: set[int], doubled: int) -> None:
    authors = Authors(CONFIG, own_session=1)
    ready: list[Given | Gap] = []
    heard = [seq for seq in order if seq not in lost]
    for seq in [*heard, *heard[:doubled]]:
        if not authors.has(ANN, 2, seq):
            assert authors.on_shout(shout(seq), 1, 0.0)
    now = 0.0
    while authors.deadline < float("inf"):
        now = authors.deadline
        authors.on_time(now)
    ready = authors.take_ready()
    at = 1
    for one in ready:
        if isinstance(one, Given):
            assert (one.seq, one.data) == (at, b"%d" % at)
            at += 1
        else:
            assert one.first == at
            assert set(range(at, at + one.count)) <= lost
            at += one.count
    assert at == max(heard, default=0) + 1
    assert authors.held == 0
    assert now < 30


def test_a_gap_is_asked_for_before_it_is_told() -> None:
    authors = Authors(CONFIG, own_session=1)
    authors.on_shout(shout(1), 1, 0.0)
    authors.on_shout(shout(4), 1, 0.0)
    tries = []
    while authors.deadline < float("inf"):
        tries += authors.on_time(authors.deadline)
    assert len(tries) == CONFIG.repair_tries
    assert {(one.first, one.count) for ask in tries for one in ask.ranges} == {(2, 2)}
    given_, gap, last = authors.take_ready()
    assert (given_, gap, last) == (Given(ANN, 1, b"1", 1), Gap(ANN, 2, 2), Given(ANN, 4, b"4", 1))


def test_what_was_said_before_we_came_is_neither_asked_for_nor_missed() -> None:
    authors = Authors(CONFIG, own_session=5)
    authors.on_shout(shout(100, session=3), 1, 0.0)  # it was there before us
    assert authors.take_ready() == [Given(ANN, 100, b"100", 1)]
    authors.on_hint(BEN, 3, 50)
    assert authors.on_entry(Entry(BEN, 3, 52)) is not None
    authors.on_shout(shout(52, session=3, author=BEN), 1, 0.0)
    assert authors.take_ready() == []  # 51 is ours to hear
    authors.on_shout(shout(51, session=3, author=BEN), 1, 0.0)
    assert [one.seq for one in authors.take_ready() if isinstance(one, Given)] == [51, 52]


def test_a_hint_that_is_too_high_hides_nothing() -> None:
    authors = Authors(CONFIG, own_session=5)
    authors.on_hint(ANN, 3, 10**9)
    assert not authors.has(ANN, 3, 7)
    authors.on_shout(shout(7, session=3), 1, 0.0)
    assert authors.take_ready() == [Given(ANN, 7, b"7", 1)]


def test_a_new_session_begins_at_one_and_ends_the_old_one() -> None:
    authors = Authors(CONFIG, own_session=1)
    authors.on_shout(shout(1, session=2), 1, 0.0)
    authors.on_shout(shout(3, session=2), 1, 0.0)
    authors.on_shout(shout(1, session=9), 1, 0.0)
    assert authors.take_ready() == [
        Given(ANN, 1, b"1", 1),
        Gap(ANN, 2, 1),
        Given(ANN, 3, b"3", 1),
        Given(ANN, 1, b"1", 1),
    ]
    assert authors.has(ANN, 2, 4)


def test_what_is_held_and_whom_we_know_is_bounded() -> None:
    config = RoomsConfig(held=10, max_authors=20)
    authors = Authors(config, own_session=1)
    for number in range(100):
        author = number.to_bytes(32, "big")
        authors.on_shout(shout(1 << 61, author=author), 1, float(number))
        assert authors.held <= 10
    assert not authors.on_shout(shout(1 << 62), 1, 0.0)
    assert len(authors._authors) == 20


# --- the tree ---


def one_author(_: int) -> bytes:
    """All messages are of one author, so that any may prune."""
    return b""


def each_its_own(number: int) -> bytes:
    """Every message has an author who says nothing else."""
    return random.Random(number).randbytes(32)


class Net:
    """Members of a tree; messages take one step each."""

    def __init__(self, size: int, edges: list[tuple[int, int]], author: Callable[[int], bytes] = one_author) -> None:
        self.nodes = [Plumtree[int, int](CONFIG, random.Random(n), author) for n in range(size)]
        self.got: list[dict[int, None]] = [{} for _ in range(size)]
        self.deaf: set[int] = set()
        self.duplicates = self.grafts = 0
        self.now = 0.0
        self.queue: list[tuple[int, int, str, Any]] = []
        for one, other in edges:
            self.nodes[one].on_up(other)
            self.nodes[other].on_up(one)

    def say(self, author: int, *numbers: int) -> None:
        """One after the other; several: at once, by members in a row."""
        for number in numbers:
            self._new(author, number, None)
            author = (author + 1) % len(self.nodes)
        self.run()

    def run(self) -> None:
        while True:
            while self.queue:
                source, to, what, numbers = self.queue.pop(0)
                self._hear(source, to, what, numbers)
            due = min(node.deadline for node in self.nodes)
            if due == float("inf"):
                return
            self.now = max(self.now, due)
            for at, node in enumerate(self.nodes):
                self.queue += [(at, to, "have", n) for to, n in node.take_haves(self.now)]
                self.queue += [(at, to, "graft", n) for to, n in node.take_grafts(self.now)]

    def _new(self, at: int, number: int, source: int | None) -> None:
        self.got[at][number] = None
        for to in self.nodes[at].on_new(number, source, self.now):
            if at not in self.deaf or source is None:  # who withholds passes nothing on
                self.queue.append((at, to, "say", [number]))

    def _hear(self, source: int, at: int, what: str, numbers: list[int]) -> None:
        node = self.nodes[at]
        if what == "have":
            node.on_have(source, [n for n in numbers if n not in self.got[at]], self.now)
        elif what == "prune":
            node.on_prune(source)
        elif what == "graft":
            self.grafts += 1
            node.on_graft(source)
            if at not in self.deaf:
                self.queue += [(at, source, "say", [n]) for n in numbers if n in self.got[at]]
        elif numbers[0] not in self.got[at]:
            self._new(at, numbers[0], source)
        else:
            self.duplicates += 1
            if node.on_duplicate(numbers[0], source, self.now):
                self.queue.append((at, source, "prune", []))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    size = draw(st.integers(2, 20))
    edges = {(draw(st.integers(0, at - 1)), at) for at in range(1, size)}  # connected
    more = draw(st.sets(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=30))
    edges |= {(min(pair), max(pair)) for pair in more if pair[0] != pair[1]}
    return size, sorted(edges)


@given(graphs(), st.lists(st.integers(0, 19), min_size=1, max_size=6))
def test_the_first_message_makes_a_tree_and_the_next_ones_come_once(
    graph: tuple[int, list[tuple[int, int]]], authors: list[int]
) -> None:
    net = Net(*graph)
    net.say(0, 0)
    before = net.duplicates
    for number, author in enumerate(authors, start=1):
        net.say(author % graph[0], number)
    assert all(len(got) == len(authors) + 1 for got in net.got)
    assert net.duplicates == before


@given(graphs(), st.integers(1, 19))
def test_a_neighbour_that_goes_is_made_up_for(graph: tuple[int, list[tuple[int, int]]], gone: int) -> None:
    size, edges = graph
    gone = gone % size or 1 % size
    ring = [(at, (at + 1) % size) for at in range(size)]  # so that the others stay connected
    net = Net(size, sorted({(min(e), max(e)) for e in [*edges, *ring] if e[0] != e[1]}))
    net.say(0, 0)
    for node in net.nodes:
        node.on_down(gone, net.now)
    for peer in [*net.nodes[gone].eager, *net.nodes[gone].lazy]:
        net.nodes[gone].on_down(peer, net.now)
    net.say(0, 1)
    assert all(1 in got for at, got in enumerate(net.got) if at != gone)


def test_of_authors_who_speak_at_once_one_prunes_and_the_tree_stays_whole() -> None:
    def grafts_and_duplicates(author: Callable[[int], bytes]) -> tuple[int, int]:
        """Grafts while sixteen at a time speak, and duplicates of one that speaks alone afterwards."""
        rng = random.Random(5)
        edges = {(at, (at + 1) % 60) for at in range(60)} | {tuple(rng.sample(range(60), 2)) for _ in range(90)}
        net = Net(60, sorted({(min(edge), max(edge)) for edge in edges}), author)  # type: ignore[type-var]
        for first in range(0, 160, 16):
            net.now += 0.5
            net.say(7 * first % 60, *range(first, first + 16))
        net.now += CONFIG.under_way_s
        before = net.duplicates
        net.say(0, 1000)
        assert all(len(got) == 161 for got in net.got)
        return net.grafts, net.duplicates - before

    each_may, one_may = grafts_and_duplicates(one_author), grafts_and_duplicates(each_its_own)
    assert each_may[0] > 10 * one_may[0]  # it falls apart, and is put together again, all the time
    assert one_may[0] < 15  # while it is not known yet who speaks
    assert one_may[1] == 0


def key(number: int) -> bytes:
    """The higher the number the higher the key of its author; of a thousand in a row it is the same."""
    return bytes([number // 1000])


def test_of_those_who_spoke_of_late_the_one_with_the_lowest_key_prunes() -> None:
    tree = Plumtree[str, int](CONFIG, random.Random(1), key)
    for peer in ("first", "second"):
        tree.on_up(peer)
    tree.on_new(5000, "first", 10.0)
    assert tree.on_duplicate(5000, "second", 10.0)  # nobody else speaks
    tree.on_graft("second")
    tree.on_new(3000, "first", 10.5)
    for number in range(5001, 5900):  # who says much keeps nobody from pruning
        tree.on_new(number, "first", 11.0)
    assert not tree.on_duplicate(5899, "second", 11.0)
    assert tree.on_duplicate(3000, "second", 11.0)
    tree.on_graft("second")
    assert not tree.on_duplicate(5899, "second", 10.4 + CONFIG.under_way_s)
    assert tree.on_duplicate(5899, "second", 10.5 + CONFIG.under_way_s)


def test_so_it_is_with_shortcuts() -> None:
    tree = Plumtree[str, int](CONFIG, random.Random(1), key)
    for peer in ("far", "near"):
        tree.on_up(peer)
    tree.on_prune("near")
    for number in (1000, 2000):
        tree.on_new(number, "far", 10.0, hops=9)
    assert tree.on_shorter("near", 2000, 1, 10.0) is None
    assert tree.on_shorter("near", 1000, 1, 10.0) == "far"


def test_of_authors_that_come_in_droves_a_bounded_number_is_remembered() -> None:
    tree = Plumtree[str, int](CONFIG, random.Random(1), each_its_own)
    for number in range(3000):
        tree.on_new(number, None, 10.0)
    assert len(tree._spoke) == 1024


def test_who_withholds_does_not_keep_it_from_others() -> None:
    net = Net(6, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 5), (0, 3)])
    net.deaf.add(1)
    for number in range(5):
        net.say(0, number)
    assert all(len(got) == 5 for got in net.got)


def test_a_shorter_way_takes_the_place_of_the_longer_one() -> None:
    tree = Plumtree[str, int](CONFIG, random.Random(1), one_author)
    for peer in ("far", "near"):
        tree.on_up(peer)
    tree.on_prune("near")
    tree.on_new(1, "far", 10.0, hops=9)
    assert tree.on_shorter("near", 1, 5, 10.0) is None
    assert tree.on_shorter("near", 1, 4, 10.0) == "far"
    assert (list(tree.eager), list(tree.lazy)) == (["near"], ["far"])
    tree.on_new(2, "near", 11.0, hops=9)
    assert tree.on_shorter("far", 2, 1, 11.0) is None  # not so soon again


# --- the views ---

KEYS = [bytes([n]) * 32 for n in range(1, 40)]

ops = st.lists(
    st.tuples(
        st.sampled_from(["join", "forward", "ask", "reply", "no", "bye", "shuffle", "fail", "time"]), st.integers(0, 38)
    ),
    max_size=120,
)


@given(ops, st.integers(0, 99))
def test_views_are_bounded_and_apart_whatever_comes(steps: list[tuple[str, int]], seed: int) -> None:
    own = bytes(32)
    outbox = Outbox()
    views = HyParView(own, ROOM, CONFIG, random.Random(seed), outbox)
    views.start(0.0)
    neighbours: dict[bytes, None] = {}
    for at, (what, which) in enumerate(steps):
        now, peer = float(at), KEYS[which]
        match what:
            case "join":
                views.on_join(peer, now)
            case "forward":
                views.on_forward_join(next(iter(views.active), peer), ForwardJoin(ROOM, peer, at % 9), now)
            case "ask":
                views.on_neighbour(peer, Neighbour(ROOM, at % 2 == 0), now)
            case "reply" | "no":
                views.on_neighbour_reply(next(iter(views.asked), peer), NeighbourReply(ROOM, what == "reply"), now)
            case "bye":
                views.on_disconnect(peer, at % 2 == 0, now)
            case "shuffle":
                views.on_shuffle(peer, Shuffle(ROOM, peer, 6, [own, *KEYS[:7]]), now)
                views.on_shuffle_reply(peer, ShuffleReply(ROOM, [own, *KEYS[7:14]]))
            case "fail":
                views.on_failed(peer, now)
            case "time":
                views.on_time(now)
        for changed, is_up in views.take_changes():
            assert (changed in neighbours) is not is_up
            if is_up:
                neighbours[changed] = None
            else:
                del neighbours[changed]
        assert list(neighbours) == list(views.active)
        assert len(views.active) <= CONFIG.active
        assert len(views.passive) <= CONFIG.passive
        assert not views.active.keys() & views.passive.keys()
        assert own not in views.active
        assert own not in views.passive
    for to, data in outbox.take():
        assert to != own
        read_message(data)


def test_a_crowd_of_strangers_pushes_out_a_few_neighbours_only() -> None:
    outbox = Outbox()
    views = HyParView(bytes(32), ROOM, RoomsConfig(evictions_per_s=1, evictions=3), random.Random(1), outbox)
    for key in KEYS:
        views.on_join(key, 0.0)
    gone = [data for _, data in outbox.take() if isinstance(read_message(data), Disconnect)]
    assert len(gone) == 3


# --- who is there ---


def test_a_suspect_that_does_not_answer_is_lost_and_old_news_does_not_bring_it_back() -> None:
    roster = Roster(CONFIG)
    roster.on_here(here(10))
    accusation = Statement(BEN, 1, Stream.SUSPECT, 1, b"", bytes(64))
    roster.on_suspect(ANN, accusation, 0.0)
    assert roster.has_suspicion(ANN, 2, 10)
    roster.on_time(CONFIG.suspect_s)
    assert roster.take_changes() == [Change(ANN, True, ""), Change(ANN, False, "lost")]
    assert roster.has(ANN, 2, 10)
    assert (len(roster), roster.sum) == (0, 0)
    roster.on_here(here(11))
    assert roster.take_changes() == [Change(ANN, True, "")]


def test_a_suspect_that_answers_stays() -> None:
    roster = Roster(CONFIG)
    roster.on_here(here(10))
    roster.on_suspect(ANN, Statement(BEN, 1, Stream.SUSPECT, 1, b"", bytes(64)), 0.0)
    roster.on_here(here(11))
    roster.on_time(1000.0)
    assert ANN in roster
    assert roster.take_changes() == [Change(ANN, True, "")]


def test_members_are_bounded_and_end_when_they_are_silent() -> None:
    roster = Roster(RoomsConfig(max_members=3, max_gone=2))
    wall = 1_000_000.0
    for number in range(5):
        assert roster.on_here(here(int(wall * 1e6), author=bytes([number]) * 32)) is (number < 3)
    assert not roster.is_acceptable(here(int((wall + 700) * 1e6)), wall)
    assert not roster.is_acceptable(here(int((wall - 1600) * 1e6)), wall)
    roster.expire(wall + CONFIG.here_life_s + 1)
    assert (len(roster), roster.sum, len(roster._gone)) == (0, 0, 2)


# --- history and events ---


@given(st.lists(st.integers(0, 30), max_size=60))
def test_the_ring_keeps_the_latest(sizes: list[int]) -> None:
    history = History(RoomsConfig(history=10, history_bytes=100))
    for seq, size in enumerate(sizes, start=1):
        history.add(Statement(ANN, 1, Stream.SHOUT, seq, bytes(size), bytes(64)), 1, is_checked=True)
    kept = [one.statement for one in history.last(100)]
    assert [one.seq for one in kept] == list(range(len(sizes) - len(kept) + 1, len(sizes) + 1))
    assert len(kept) <= 10
    assert sum(len(one.data) for one in kept) <= 100


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["say", "whisper", "take"]), max_size=80))
def test_no_shout_is_lost_without_a_word(steps: list[str]) -> None:
    counters: Counter[str] = Counter()
    queue = EventQueue(RoomsConfig(events=5), counters)
    ann = identity(1).id
    seq = whispers = 0
    got: list[RoomEvent] = [Entered(ann, "")]
    queue.put(got.pop())
    for step in steps:
        if step == "say":
            seq += 1
            queue.put(Said(ann, b"x", seq))
        elif step == "whisper":
            whispers += 1
            queue.put(Whispered(ann, b"x"))
        elif (event := queue.take()) is not None:
            got.append(event)
    while (event := queue.take()) is not None:
        got.append(event)
    at = 1
    for event in got:
        if isinstance(event, Said):
            assert event.seq == at
            at += 1
        elif isinstance(event, Missed) and event.first:
            assert event.first == at
            at += event.count
    assert at == seq + 1
    lost = sum(event.count for event in got if isinstance(event, Missed) and not event.first)
    assert lost + sum(isinstance(event, Whispered) for event in got) == whispers
    assert counters["rooms.overflow"] == sum(event.count for event in got if isinstance(event, Missed))


# --- the wire ---


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    try:
        read_message(data)
    except WireError:
        return


def test_lists_of_strangers_are_bounded() -> None:
    outbox = Outbox()
    outbox.say(ANN, ShuffleReply(ROOM, [BEN] * 17))
    ((_, data),) = outbox.take()
    with pytest.raises(WireError):
        read_message(data)
