"""libtorrent's DHT (C++): mutable items (BEP 44), signed; limits per address off, since all share one."""

import asyncio
import hashlib
import random
from typing import Any

from benchmarks.dht.rival import Rival, Skipped, make_deaf

__all__ = ["make"]

_SETTINGS = {
    "enable_dht": True,
    "enable_lsd": False,
    "enable_natpmp": False,
    "enable_upnp": False,
    "dht_bootstrap_nodes": "",
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False,
    "dht_enforce_node_id": False,
    "dht_ignore_dark_internet": False,
    "dht_upload_rate_limit": 100_000_000,
    "dht_block_ratelimit": 1_000_000,
}


class _Owner:
    """A key pair, in the form of libtorrent: the secret scalar and the nonce's key, not the seed."""

    def __init__(self, seed: bytes) -> None:
        import nacl.bindings

        self.public, _ = nacl.bindings.crypto_sign_seed_keypair(seed)
        expanded = bytearray(hashlib.sha512(seed).digest())
        expanded[0] &= 248
        expanded[31] = expanded[31] & 63 | 64
        self.secret = bytes(expanded)


class _Libtorrent(Rival):
    says_when_joined = False
    settle_s = 3.0

    def __init__(self, lt: Any) -> None:
        self._lt = lt
        self._loop = asyncio.get_running_loop()
        self._nodes: list[Any] = []
        self._ports: list[int] = []
        self._owners: list[_Owner] = []
        self._rng = random.Random(0)
        # What waits for an alert: by session, then by the item's key and salt
        self._waiting: list[dict[tuple[bytes, bytes], list[asyncio.Future[Any]]]] = []

    async def join(self, entry: int | None) -> None:
        lt, number = self._lt, len(self._nodes)
        alerts = lt.alert.category_t.dht_notification | lt.alert.category_t.status_notification
        port = 20_000 + number
        node = lt.session({**_SETTINGS, "listen_interfaces": f"127.0.0.1:{port}", "alert_mask": alerts})
        self._waiting.append({})
        self._nodes.append(node)
        self._ports.append(port)
        self._owners.append(_Owner(self._rng.randbytes(32)))
        node.set_alert_notify(lambda: self._loop.call_soon_threadsafe(self._on_alerts, number))
        if entry is not None:
            node.add_dht_node(("127.0.0.1", self._ports[entry]))

    async def put(self, owner: int, number: int, value: bytes) -> None:
        keys, salt = self._owners[owner], _salt(number)
        done = self._wait_for(owner, keys.public, salt)
        self._nodes[owner].dht_put_mutable_item(keys.secret, keys.public, value, salt)
        await done

    async def get(self, node: int, owner: int, number: int) -> bytes | None:
        public, salt = self._owners[owner].public, _salt(number)
        done = self._wait_for(node, public, salt)
        self._nodes[node].dht_get_mutable_item(public, salt)
        value: bytes | None = await done
        return value

    async def silence(self, node: int) -> None:
        make_deaf(self._ports[node])

    def _wait_for(self, node: int, public: bytes, salt: bytes) -> "asyncio.Future[Any]":
        done: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[node].setdefault((public, salt), []).append(done)
        return done

    def _on_alerts(self, node: int) -> None:
        lt = self._lt
        for alert in self._nodes[node].pop_alerts():
            if isinstance(alert, lt.dht_put_alert):
                self._settle(node, bytes(alert.public_key), bytes(alert.salt), None)
            elif isinstance(alert, lt.dht_mutable_item_alert):
                value = alert.item["value"] if isinstance(alert.item, dict) else alert.item
                if value or alert.authoritative:  # the first value, or that there is none
                    self._settle(node, bytes(alert.key), bytes(alert.salt), value or None)

    def _settle(self, node: int, public: bytes, salt: bytes, result: object) -> None:
        for done in self._waiting[node].pop((public, salt), []):
            if not done.done():
                done.set_result(result)


def _salt(number: int) -> bytes:
    return f"value {number}".encode()


def make() -> Rival:
    """A network of sessions."""
    try:
        import libtorrent
        import nacl.bindings  # noqa: F401 # for its keys
    except ImportError as error:
        raise Skipped(f"{error.name} is not installed (make bench-rivals)") from None
    return _Libtorrent(libtorrent)
