"""The control socket: a server and its clients in one loop, and clients that keep to nothing."""

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dht_atonce.cli import control
from dht_atonce.cli.control import ControlClient, Lookup, Request, Send, Status, serve
from dht_atonce.errors import ControlError, DeliveryUnknown, PeerIdError, PeerUnknown

pytestmark = pytest.mark.usefixtures("within_ten_seconds")


@pytest.fixture
async def within_ten_seconds() -> AsyncIterator[None]:
    """What hangs shall fail here, not by the clock of the whole run."""
    async with asyncio.timeout(10):
        yield


async def repeat(request: Request) -> dict[str, Any]:
    """An answer that tells what was understood."""
    match request:
        case Status():
            return {"said": "status"}
        case Lookup(peer, fresh):
            return {"said": "lookup", "peer": peer, "fresh": fresh}
        case Send(peer, data, timeout_s):
            return {"said": "send", "peer": peer, "size": len(data), "timeout_s": timeout_s}


async def connect(folder: Path) -> ControlClient:
    client = await ControlClient.connect(folder)
    assert client is not None
    return client


async def converse(folder: Path, data: bytes) -> list[dict[str, Any]]:
    """All that the server says to these bytes, until it hangs up."""
    reader, writer = await asyncio.open_unix_connection(folder / "control.sock")
    writer.write(data)
    writer.write_eof()
    replies = [json.loads(line) for line in (await reader.read()).splitlines()]
    writer.close()
    return replies


# --- requests and answers ---


async def test_each_request_and_its_answer(tmp_path: Path) -> None:
    async with serve(tmp_path, repeat):
        client = await connect(tmp_path)
        assert await client.ask(Status()) == {"said": "status"}
        assert await client.ask(Lookup("alice")) == {"said": "lookup", "peer": "alice", "fresh": False}
        assert await client.ask(Lookup("alice", fresh=True)) == {"said": "lookup", "peer": "alice", "fresh": True}
        largest = await client.ask(Send("alice", bytes(60_000), 2.5))
        assert largest == {"said": "send", "peer": "alice", "size": 60_000, "timeout_s": 2.5}
        assert (await client.ask(Send("alice", b"")))["timeout_s"] is None
        client.close()


async def test_answers_on_a_connection_come_in_order_and_connections_side_by_side(tmp_path: Path) -> None:
    arrived, may_go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> dict[str, Any]:
        if isinstance(request, Lookup):
            arrived.set()
            await may_go_on.wait()
        return await repeat(request)

    async with serve(tmp_path, slow):
        waiting = asyncio.create_task(converse(tmp_path, b'{"op": "lookup", "peer": "alice"}\n{"op": "status"}\n'))
        await arrived.wait()
        other = await connect(tmp_path)
        assert await other.ask(Status()) == {"said": "status"}
        other.close()
        may_go_on.set()
        assert [reply["said"] for reply in await waiting] == ["lookup", "status"]


@pytest.mark.parametrize("error", [PeerUnknown("nobody"), DeliveryUnknown("who knows"), PeerIdError("a typo")])
async def test_an_error_comes_out_as_it_went_in(error: Exception, tmp_path: Path) -> None:
    async def fail(request: Request) -> dict[str, Any]:
        raise error

    async with serve(tmp_path, fail):
        client = await connect(tmp_path)
        for _ in range(2):  # the connection stays
            with pytest.raises(type(error), match=str(error)):
                await client.ask(Status())
        client.close()


async def test_a_mistake_of_ours_is_told_and_reported(tmp_path: Path) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def broken(request: Request) -> dict[str, Any]:
        raise ZeroDivisionError("oh")

    async with serve(tmp_path, broken):
        client = await connect(tmp_path)
        with pytest.raises(ControlError, match="internal: ZeroDivisionError: oh"):
            await client.ask(Status())
        client.close()
    assert isinstance(reported[0]["exception"], ZeroDivisionError)


# --- clients that keep to nothing ---

NO_REQUESTS = [
    b"",
    b"garbage",
    b"null",
    b"[]",
    b"{}",
    b'{"op": "explode"}',
    b'{"op": "lookup"}',
    b'{"op": "lookup", "peer": 7}',
    b'{"op": "lookup", "peer": "' + b"a" * 65 + b'"}',
    b'{"op": "send", "peer": "alice", "data": "no base64"}',
    b'{"op": "send", "peer": "alice", "data": "", "timeout_s": 0}',
    b'{"op": "send", "peer": "alice", "data": "", "timeout_s": 1e9}',
    b"\xff\xfe\x00",
    b'{"op": "status"} {"op": "status"}',
]


@pytest.mark.parametrize("line", NO_REQUESTS)
async def test_what_is_no_request_is_refused_and_the_next_one_answered(line: bytes, tmp_path: Path) -> None:
    async with serve(tmp_path, repeat):
        refusal, answer = await converse(tmp_path, line + b'\n{"op": "status"}\n')
    assert refusal.keys() == {"ok", "kind", "error"}
    assert (refusal["ok"], refusal["kind"]) == (False, "ControlError")
    assert refusal["error"].startswith("not a request: ")
    assert answer == {"ok": True, "said": "status"}


async def test_a_line_that_is_longer_than_any_request_ends_the_connection(tmp_path: Path) -> None:
    async with serve(tmp_path, repeat):
        (refusal,) = await converse(tmp_path, b"x" * 262_200 + b'\n{"op": "status"}\n')
        assert refusal["error"] == "not a request: a line has at most 262144 bytes"
        assert await converse(tmp_path, b'{"op": "status"}\n') == [{"ok": True, "said": "status"}]


async def test_clients_that_hang_up_in_the_middle(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def slow(request: Request) -> dict[str, Any]:
        if isinstance(request, Lookup):
            asked.set()
            await asyncio.sleep(0)
        return await repeat(request)

    async with serve(tmp_path, slow):
        for data in (b"", b'{"op": "sta', b'{"op": "lookup", "peer": "alice"}\n'):
            _, writer = await asyncio.open_unix_connection(tmp_path / "control.sock")
            writer.write(data)
            writer.transport.abort()
        assert await converse(tmp_path, b'{"op": "status"}\n') == [{"ok": True, "said": "status"}]


async def test_more_clients_than_are_served(tmp_path: Path) -> None:
    async with serve(tmp_path, repeat):
        clients = [await connect(tmp_path) for _ in range(64)]
        for client in clients:
            await client.ask(Status())
        (refusal,) = await converse(tmp_path, b"")
        assert "try again later" in refusal["error"]
        for client in clients:
            client.close()
        # It takes a moment until the server has heard that they have gone.
        answers = [await converse(tmp_path, b'{"op": "status"}\n') for _ in range(20)]
        assert answers[-1] == [{"ok": True, "said": "status"}]


# --- servers that keep to nothing ---


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "ended before it answered"),
        (b'{"ok": tr', "ended before it answered"),
        (b"garbage\n", "of another version"),
        (b"[]\n", "of another version"),
        (b"{}\n", "of another version"),
        (b'{"ok": false, "kind": "Exception", "error": "no error of ours"}\n', "no error of ours"),
        (b'{"ok": false}\n', "^$"),
    ],
)
async def test_an_answer_that_is_none(answer: bytes, says: str, tmp_path: Path) -> None:
    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(on_connection, tmp_path / "control.sock"):
        client = await connect(tmp_path)
        with pytest.raises(ControlError, match=says):
            await client.ask(Status())
        client.close()


async def test_an_answer_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_SPARE_S", 0.05)
    never = asyncio.Event()

    async def silent(request: Request) -> dict[str, Any]:
        if isinstance(request, Status):
            await never.wait()
        return {}

    async with serve(tmp_path, silent):
        client = await connect(tmp_path)
        with pytest.raises(ControlError, match=r"has not answered within 0\.05 s"):
            await client.ask(Status())
        # A late answer would be taken for that to the next question.
        with pytest.raises(ControlError, match="ended before it answered"):
            await client.ask(Lookup("alice"))


async def test_a_send_is_waited_for_as_long_as_it_may_take() -> None:
    assert Send("alice", b"", 100).patience_s > 100
    assert Send("alice", b"").patience_s > 10


# --- the socket ---


async def test_the_socket_is_ours_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serve(tmp_path, repeat):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client = await connect(tmp_path)
        await client.ask(Status())  # asyncio forgets a connection that comes in the very turn in which it closes
    assert not path.exists()
    with pytest.raises(ControlError, match="ended before it answered"):
        await client.ask(Status())
    client.close()
    assert await ControlClient.connect(tmp_path) is None


async def test_where_no_process_listens_there_is_no_client(tmp_path: Path) -> None:
    assert await ControlClient.connect(tmp_path) is None
    assert await ControlClient.connect(tmp_path / "nowhere") is None
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "control.sock"))  # as a killed process leaves it
    assert await ControlClient.connect(tmp_path) is None


async def test_the_socket_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "control.sock").touch()
    async with serve(tmp_path, repeat):
        assert await converse(tmp_path, b'{"op": "status"}\n') == [{"ok": True, "said": "status"}]


async def test_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    for _ in range(2):
        async with serve(folder, repeat):
            client = await connect(folder)
            assert await client.ask(Status()) == {"said": "status"}
            client.close()
        assert not (folder / "control.sock").exists()


async def test_where_there_can_be_no_socket(tmp_path: Path) -> None:
    (tmp_path / "control.sock").mkdir()
    with pytest.raises(ControlError, match="cannot be made: Is a directory"):
        async with serve(tmp_path, repeat):
            pass
