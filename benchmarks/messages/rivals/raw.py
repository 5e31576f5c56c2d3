"""Raw pyzmq with CURVE, blocking, two plain `recv` for a ROUTER's message: the ceiling that ours is measured against.

It acknowledges nothing by itself, bounds nothing, and knows nobody by name.
"""

import time
from collections.abc import Callable
from typing import Any

import zmq

from benchmarks.messages.plan import ROWS, Plan
from benchmarks.messages.rival import Figures, Info, Skipped
from benchmarks.messages.workload import ACK, CHUNK, DONE, ECHO, END, STREAM, Clock, latencies, message

__all__ = ["far", "near"]

Socket = Any
_HIGH_WATER_MARK = 100_000  # a ROUTER drops what is beyond it


def _socket(context: "zmq.Context[Any]", kind: int, keys: tuple[bytes, bytes]) -> Socket:
    sock = context.socket(kind)
    sock.curve_publickey, sock.curve_secretkey = keys
    sock.set_hwm(_HIGH_WATER_MARK)
    return sock


async def far(plan: Plan, say: Callable[[Info], None]) -> None:
    """A ROUTER for each link."""
    context: zmq.Context[Any] = zmq.Context()
    public, secret = zmq.curve_keypair()
    routers = []
    for _ in range(plan.links if plan.row.startswith("fan") else 1):
        router = _socket(context, zmq.ROUTER, (public, secret))
        router.curve_server = True
        router.bind("tcp://127.0.0.1:*")
        routers.append(router)
    say({"ports": [int(r.last_endpoint.decode().rpartition(":")[2]) for r in routers], "key": public.decode()})
    if len(routers) == 1:
        _serve(routers[0])
    else:
        _serve_many(routers)


def _serve(router: Socket) -> None:
    recv, send = router.recv, router.send
    while True:
        routing_id, data = recv(), recv()
        what = data[0]
        if what == STREAM:
            continue
        send(routing_id, zmq.SNDMORE)
        send(data if what == ECHO else DONE)


def _serve_many(routers: list[Socket]) -> None:
    poller = zmq.Poller()
    for router in routers:
        poller.register(router, zmq.POLLIN)
    while True:
        for router, _ in poller.poll():
            while True:
                routing_id, data = router.recv(), router.recv()
                if data[0] != STREAM:
                    router.send(routing_id, zmq.SNDMORE)
                    router.send(DONE)
                if not router.get(zmq.EVENTS) & zmq.POLLIN:
                    break


async def near(plan: Plan, info: Info) -> Figures:
    """A DEALER for each link."""
    row = ROWS[plan.row]
    context: zmq.Context[Any] = zmq.Context()
    keys = zmq.curve_keypair()
    dealers = []
    for port in info["ports"]:
        dealer = _socket(context, zmq.DEALER, keys)
        dealer.curve_serverkey = info["key"].encode()
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealers.append(dealer)
    for dealer in dealers:
        dealer.send(message(ACK, 1))
        dealer.recv()
    if row.name.startswith("one-way"):
        return _one_way(plan, dealers[0], message(STREAM, row.size))
    if row.name.startswith("acked"):
        return _acked(plan, dealers[0], message(ACK, row.size), row.in_flight)
    if row.name.startswith("fan"):
        return _fan_out(plan, dealers, message(STREAM, row.size), row.burst)
    if row.name == "memory":
        raise Skipped("only ours")
    return _ping(plan, dealers[0], message(ECHO, row.size))


def _one_way(plan: Plan, dealer: Socket, data: bytes) -> Figures:
    send, clock, end = dealer.send, Clock(plan), message(END, 1)
    while True:
        for _ in range(CHUNK):
            send(data)
        send(end)
        dealer.recv()
        if clock.is_over(CHUNK):
            return clock.rate


def _acked(plan: Plan, dealer: Socket, data: bytes, in_flight: int) -> Figures:
    send, recv, clock = dealer.send, dealer.recv, Clock(plan)
    for _ in range(in_flight):
        send(data)
    while True:
        for _ in range(CHUNK // 4):
            recv()
            send(data)
        if clock.is_over(CHUNK // 4):
            return clock.rate


def _fan_out(plan: Plan, dealers: list[Socket], data: bytes, burst: int) -> Figures:
    sends, clock, end = [dealer.send for dealer in dealers], Clock(plan), message(END, 1)
    rounds = max(1, CHUNK // len(dealers) // burst) * burst
    while True:
        for _ in range(rounds):
            for send in sends:
                send(data)
        for send in sends:
            send(end)
        for dealer in dealers:
            dealer.recv()
        if clock.is_over(rounds * len(dealers)):
            return clock.rate


def _ping(plan: Plan, dealer: Socket, data: bytes) -> Figures:
    send, recv, clock, now = dealer.send, dealer.recv, Clock(plan), time.perf_counter
    took = []
    while True:
        for _ in range(100):
            began = now()
            send(data)
            recv()
            took.append(now() - began)
        if clock.is_over(100):
            return latencies(took, plan) | clock.cpu
