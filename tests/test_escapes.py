"""Nobody leaves the virtual world."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from atonce_sim.escapes import no_escape
from atonce_sim.loop import run
from dht_atonce.errors import Escape


def connect() -> None:
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", 9))


def bind() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))


def send() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"", ("127.0.0.1", 9))


@pytest.mark.parametrize(
    "escape",
    [
        lambda: time.sleep(0.001),
        lambda: threading.Thread(target=print).start(),
        lambda: socket.getaddrinfo("127.0.0.1", 80),
        lambda: socket.gethostbyname("127.0.0.1"),
        connect,
        bind,
        send,
        lambda: subprocess.run([sys.executable, "-c", ""], check=False),
        lambda: os.system("true"),
    ],
    ids=["sleep", "thread", "getaddrinfo", "gethostbyname", "connect", "bind", "send", "subprocess", "system"],
)
def test_what_would_leave_the_world_raises(escape: Callable[[], object]) -> None:
    async def main() -> None:
        with pytest.raises(Escape, match="virtual world"):
            escape()

    run(main())


def test_loops_have_no_way_out_either() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ways: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: asyncio.to_thread(print),
            lambda: loop.getaddrinfo("localhost", 80),
            lambda: loop.create_connection(asyncio.Protocol, "127.0.0.1", 9),
            lambda: loop.create_server(asyncio.Protocol, "127.0.0.1", 0),
            lambda: loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)),
        ]
        for way in ways:
            with pytest.raises(Escape):
                await way()

    run(main())


def test_outside_and_in_other_threads_all_is_as_ever() -> None:
    slept = threading.Event()
    go = threading.Event()

    def sleep() -> None:
        go.wait(10)
        time.sleep(0.001)
        slept.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    with no_escape():
        with no_escape():
            pass
        go.set()
        assert slept.wait(10)
        with pytest.raises(Escape):
            time.sleep(0)
    thread.join()
    time.sleep(0)
