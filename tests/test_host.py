"""The machine: its clocks, its resolver, its threads, its randomness."""

import asyncio
import random
import socket
import threading
import time
from typing import Any

import pytest

from dht_atonce.clock import SystemClock
from dht_atonce.datagrams import UdpNet
from dht_atonce.host import Host, LinkNetFactory, SystemOffload, SystemResolver
from dht_atonce.identity import Identity
from dht_atonce.links import LinkNet


def no_links(identity: Identity) -> LinkNet:
    raise AssertionError(f"nobody asked for links of {identity}")


# --- the clocks ---


async def test_spans_are_measured_on_the_loop_s_clock() -> None:
    # A timer and what it is compared with must never disagree.
    clock, loop = SystemClock(), asyncio.get_running_loop()
    before = loop.time()
    between = clock.monotonic()
    assert before <= between <= loop.time()


def test_the_wall_clock_is_unix_time() -> None:
    before = time.time()
    between = SystemClock().wall()
    assert before <= between <= time.time()


# --- the resolver ---


@pytest.mark.parametrize(
    ("literal", "ip"), [("192.0.2.1", "192.0.2.1"), ("2001:DB8::1", "2001:db8::1"), ("::1", "::1")]
)
async def test_an_ip_is_its_own_address(monkeypatch: pytest.MonkeyPatch, literal: str, ip: str) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)  # nobody is asked
    assert await SystemResolver().resolve(literal) == [ip]


async def test_a_name_has_all_its_addresses_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def getaddrinfo(name: str, *_: Any, **__: Any) -> list[tuple[int, int, int, str, tuple[Any, ...]]]:
        asked.append((name, threading.current_thread() is threading.main_thread()))
        six, four = socket.AF_INET6, socket.AF_INET
        return [
            (six, 1, 6, "", ("2001:db8::1", 0, 0, 0)),
            (four, 1, 6, "", ("192.0.2.9", 0)),
            (six, 2, 17, "", ("2001:db8::1", 0, 0, 0)),
            (four, 1, 6, "", ("192.0.2.1", 0)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert await SystemResolver().resolve("seed.example.org") == ["2001:db8::1", "192.0.2.9", "192.0.2.1"]
    assert asked == [("seed.example.org", False)]  # in a thread: DNS may take seconds


async def test_the_real_resolver_knows_this_machine() -> None:
    assert {"127.0.0.1", "::1"} & set(await SystemResolver().resolve("localhost"))


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64 + ".org", "a\0b", "nobody.invalid"])
async def test_a_name_that_nobody_has_has_no_addresses(name: str) -> None:
    assert await SystemResolver().resolve(name) == []


# --- threads ---


async def test_what_would_block_runs_in_a_thread() -> None:
    thread = await SystemOffload().run(threading.current_thread)
    assert thread is not threading.main_thread()


async def test_what_it_raises_is_raised() -> None:
    def fail() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        await SystemOffload().run(fail)


# --- the whole ---


def test_a_host_is_the_real_machine_unless_told_otherwise() -> None:
    links: LinkNetFactory = no_links
    host = Host(links)
    assert host.links is no_links
    assert isinstance(host.clock, SystemClock)
    assert isinstance(host.datagrams, UdpNet)
    assert isinstance(host.resolver, SystemResolver)
    assert isinstance(host.offload, SystemOffload)
    # Keys and nonces come from it: nothing less than the system's generator will do.
    assert isinstance(host.rng, random.SystemRandom)
    assert Host(links, rng=random.Random(7)).rng.random() == random.Random(7).random()
