"""Receipts: what those who wait for one are told, and when."""

import asyncio
from math import inf

import pytest
from support_peers import virtual

from dht_atonce.config import MessagingConfig
from dht_atonce.errors import AtOnceError, DeliveryUnknown, NotAccepted, PeerOffline
from dht_atonce.messaging.outflow import Outflow
from dht_atonce.messaging.receipts import Batch, Receipt, State

CONFIG = MessagingConfig()


def pushed(*messages: bytes) -> tuple[Outflow, list[Receipt]]:
    """An outflow and what was pushed into it, all in one batch."""
    outflow = Outflow(CONFIG)
    return outflow, [outflow.push(data, 0, inf) for data in messages]


async def told(receipt: Receipt) -> AtOnceError | None:
    """What waiting for it raises."""
    try:
        await receipt
    except AtOnceError as error:
        return error
    return None


async def waiting(*receipts: Receipt) -> "list[asyncio.Task[AtOnceError | None]]":
    """Somebody who waits for each."""
    tasks = [asyncio.create_task(told(receipt)) for receipt in receipts]
    await asyncio.sleep(0)
    return tasks


def wake(*batches: Batch) -> None:
    for batch in batches:
        batch.wake()


def test_who_waits_is_told_when_it_is_delivered_and_others_wait_on() -> None:
    async def main() -> None:
        outflow, receipts = pushed(b"1", b"2", b"3")
        tasks = await waiting(*receipts)
        outflow.take(0.0)
        wake(*outflow.on_ack(2))
        await asyncio.sleep(0.01)
        assert [task.done() for task in tasks] == [True, True, False]
        wake(*outflow.on_ack(3))
        assert await asyncio.gather(*tasks) == [None] * 3

    virtual(main())


@pytest.mark.parametrize("times", [1, 2, 3])
def test_as_many_as_like_may_wait_for_the_same_and_also_afterwards(times: int) -> None:
    async def main() -> None:
        outflow, (receipt,) = pushed(b"m")
        tasks = await waiting(*[receipt] * times)
        outflow.take(0.0)
        wake(*outflow.on_ack(1))
        assert await asyncio.gather(*tasks) == [None] * times
        await receipt
        assert receipt.state is State.DELIVERED

    virtual(main())


@pytest.mark.parametrize(
    ("error", "state"), [(NotAccepted, State.REFUSED), (PeerOffline, State.EXPIRED)], ids=["refused", "offline"]
)
def test_who_waits_for_what_never_leaves_is_told_why(error: type[AtOnceError], state: State) -> None:
    async def main() -> None:
        outflow, (receipt,) = pushed(b"m")
        tasks = await waiting(receipt, receipt)
        wake(*outflow.drop_unsent((error, "because")))
        for one in [*await asyncio.gather(*tasks), await told(receipt)]:
            assert isinstance(one, error)
            assert str(one) == "because"
        assert receipt.state is state

    virtual(main())


def test_what_is_unknown_may_turn_out_to_be_delivered() -> None:
    async def main() -> None:
        outflow, (receipt,) = pushed(b"m")
        outflow.take(0.0)
        (task,) = await waiting(receipt)
        wake(*outflow.doubt((DeliveryUnknown, "who knows")))
        assert isinstance(await task, DeliveryUnknown)
        assert isinstance(await told(receipt), DeliveryUnknown)
        assert receipt.state is State.UNKNOWN
        wake(*outflow.on_ack(1))
        assert await told(receipt) is None
        assert receipt.state is State.DELIVERED

    virtual(main())


def test_who_waits_for_what_was_withdrawn_is_never_told_that_it_was_delivered() -> None:
    # Its number travels without it, and is acknowledged.
    async def main() -> None:
        outflow, (one, two) = pushed(b"1", b"2")
        tasks = await waiting(one, two)
        assert outflow.withdraw(two)
        outflow.take(0.0)
        wake(*outflow.on_ack(2))
        assert await tasks[0] is None
        assert isinstance(await tasks[1], PeerOffline)
        assert isinstance(await told(two), PeerOffline)
        assert [one.state, two.state] == [State.DELIVERED, State.EXPIRED]

    virtual(main())


def test_who_stops_waiting_disturbs_nobody() -> None:
    async def main() -> None:
        outflow, (receipt,) = pushed(b"m")
        gone, stays = await waiting(receipt, receipt)
        gone.cancel()
        await asyncio.sleep(0)
        outflow.take(0.0)
        wake(*outflow.on_ack(1))
        assert await stays is None
        assert gone.cancelled()

    virtual(main())
