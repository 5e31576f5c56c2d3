"""Defaults: what a network is, and what it may be."""

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.config import DhtConfig, LinkConfig, MessagingConfig, NetworkConfig, SeedConfig, checked_network
from dht_atonce.errors import WireError

AUTHORITY = bytes(range(32))

names = st.text(min_size=1, max_size=64).filter(
    lambda name: not any(0xD800 <= ord(c) < 0xE000 for c in name) and len(name.encode()) <= 64
)


def test_presets() -> None:
    assert NetworkConfig.internet() == NetworkConfig()
    assert not NetworkConfig.internet("chess").local
    assert NetworkConfig.internet("chess").name == "chess"
    assert NetworkConfig.local_network("chess", k=4) == NetworkConfig(name="chess", k=4, local=True)


def test_the_network_id_is_as_specified() -> None:
    # docs/wire.md section 1
    expected = hashlib.blake2b(b"\x06atonce", digest_size=16).digest()
    assert NetworkConfig().network_id == expected
    # The length is that of the bytes.
    expected = hashlib.blake2b(b"\x05M\xc3\xbche" + AUTHORITY, digest_size=16).digest()
    assert NetworkConfig(name="Mühe", authority_key=AUTHORITY).network_id == expected


@given(names, names)
def test_networks_of_other_names_are_other_networks(one: str, other: str) -> None:
    assert (NetworkConfig(one).network_id == NetworkConfig(other).network_id) == (one == other)


def test_an_authority_makes_another_network() -> None:
    certified = NetworkConfig("chess", AUTHORITY)
    assert certified.network_id != NetworkConfig("chess").network_id
    # The name's length stands before it: no name can swallow a part of the key.
    longer = NetworkConfig("chess" + AUTHORITY[:1].decode(), b"").network_id
    assert longer != certified.network_id


def test_what_a_member_may_choose_is_no_part_of_the_network_id() -> None:
    network = NetworkConfig("chess")
    assert network.with_k(8).k == 8
    assert network.with_k(8).network_id == network.network_id
    assert NetworkConfig("chess", local=True, record_life_s=600).network_id == network.network_id


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": ""}, "1 to 64 bytes"),
        ({"name": "x" * 65}, "1 to 64 bytes"),
        ({"name": "ü" * 33}, "1 to 64 bytes"),
        ({"authority_key": bytes(31)}, "32 bytes"),
        ({"k": 0}, "between 1 and 64"),
        ({"k": 65}, "between 1 and 64"),
        ({"record_life_s": 59}, "between a minute and a week"),
        ({"record_life_s": 7 * 86400 + 1}, "between a minute and a week"),
    ],
    ids=str,
)
def test_what_no_network_can_be(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        NetworkConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "right", [{"name": "x" * 64}, {"k": 1}, {"k": 64}, {"record_life_s": 60}, {"record_life_s": 604800}]
)
def test_the_bounds_belong_to_it(right: dict[str, object]) -> None:
    NetworkConfig(**right)  # type: ignore[arg-type]


def test_of_a_stranger_s_words_the_same_is_asked() -> None:
    assert checked_network("chess", AUTHORITY, 8, True, 600) == NetworkConfig("chess", AUTHORITY, 8, True, 600)
    with pytest.raises(WireError, match="between 1 and 64"):
        checked_network("chess", b"", 0, False, 7200)
    with pytest.raises(WireError):
        checked_network("\ud800", b"", 20, False, 7200)


@pytest.mark.parametrize("kind", [NetworkConfig, DhtConfig, LinkConfig, MessagingConfig, SeedConfig])
def test_a_configuration_cannot_be_changed_but_replaced(kind: type) -> None:
    config = kind()
    field = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, field, None)
    assert kind() == config


def test_the_defaults_agree_with_each_other() -> None:
    dht, link, messaging, network = DhtConfig(), LinkConfig(), MessagingConfig(), NetworkConfig()
    assert dht.cookie_use_s < dht.cookie_epoch_s  # used only while the one who issued it surely knows it
    assert dht.min_timeout_s <= dht.first_timeout_s <= dht.max_timeout_s
    assert dht.lookup_max_requests < dht.publish_max_requests
    assert dht.agreement <= network.k
    assert link.heartbeat_s < link.timeout_s
    assert messaging.max_message_bytes <= messaging.frame_bytes <= link.max_body_bytes < link.max_message_bytes
    assert messaging.window_bytes >= messaging.max_message_bytes
