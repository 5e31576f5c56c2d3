"""Contacts: their bytes, which are accepted from whom, and that equal ones are made once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import contact

from dht_atonce.dht import contact as module
from dht_atonce.dht.contact import (
    Contact,
    contact_at,
    pack_contact,
    share_contacts,
    shared_contact,
    stranger_at,
    unpack_contact,
    unpack_contacts,
)
from dht_atonce.endpoints import Address, Family, is_acceptable, pack_address
from dht_atonce.errors import WireError
from dht_atonce.identity import node_id

keys = st.binary(min_size=32, max_size=32)
addresses = st.builds(Address, st.ip_addresses().map(str), st.integers(0, 65535))
contacts = st.builds(Contact, keys, addresses)
HOME = Contact(bytes(range(32)), Address("10.0.0.1", 4000))
AWAY = Contact(bytes(range(32)), Address("51.0.0.1", 4000))
FRIEND6 = Contact(bytes(32), Address("2606:4700::1111", 4000))


@given(keys, addresses)
def test_a_contact_is_a_key_at_an_address(key: bytes, address: Address) -> None:
    one = Contact(key, address)
    assert (one.key, one.address, one.ip, one.port) == (key, address, address.ip, address.port)
    assert one.id == node_id(key)
    assert one.long_id == int.from_bytes(one.id, "big")
    assert pack_contact(one) == one.packed == key + pack_address(address)
    with pytest.raises(AttributeError):
        one.key = key  # type: ignore[misc]


@given(keys, addresses, keys, addresses)
def test_contacts_are_equal_if_key_and_address_are(key: bytes, here: Address, other: bytes, there: Address) -> None:
    one = Contact(key, here)
    assert one == Contact(bytes(bytearray(key)), Address(here.ip, here.port))
    assert hash(one) == hash(Contact(key, here))
    for another in (Contact(other, here), Contact(key, there)):
        assert (one == another) == ((one.key, one.address) == (another.key, another.address))
    assert one != one.packed


@pytest.mark.parametrize(
    "address", [Address("localhost", 4000), Address("fe80::1%eth0", 4000), Address("1.1.1.1", 70000)]
)
def test_an_address_that_has_no_bytes_makes_a_contact_that_nobody_accepts(address: Address) -> None:
    one = Contact(bytes(32), address)
    assert one == Contact(bytes(32), address)
    assert one != Contact(bytes(32), address._replace(port=4001))
    for family in Family:
        for local in (True, False):
            assert unpack_contacts([one.packed], family, local=local) == []


@given(contacts, st.booleans())
def test_what_is_acceptable_is_read_back(one: Contact, local: bool) -> None:
    family = one.address.family
    if is_acceptable(one.address, local=local):
        assert unpack_contact(one.packed, family, local=local) == one
    else:
        with pytest.raises(WireError, match="not acceptable"):
            unpack_contact(one.packed, family, local=local)


@given(st.lists(st.one_of(contacts.map(pack_contact), st.binary(max_size=60)), max_size=8), st.booleans())
def test_of_many_those_are_read_that_are_read_one_by_one(raw: list[bytes], local: bool) -> None:
    for _ in range(2):  # whether they were known before or not
        for family in Family:
            expected = []
            for data in raw:
                try:
                    expected.append(unpack_contact(data, family, local=local))
                except WireError:
                    continue
            assert unpack_contacts(raw, family, local=local) == expected


def test_what_one_network_accepted_another_still_refuses() -> None:
    raw = [HOME.packed, AWAY.packed, FRIEND6.packed]
    assert unpack_contacts(raw, Family.IPV4, local=True) == [HOME, AWAY]
    assert unpack_contacts(raw, Family.IPV4, local=False) == [AWAY]
    assert unpack_contacts(raw, Family.IPV6, local=False) == [FRIEND6]


def test_equal_contacts_are_made_once_wherever_they_come_from() -> None:
    one = contact_at(HOME.key, HOME.address)
    assert contact_at(bytes(bytearray(HOME.key)), Address("10.0.0.1", 4000)) is one
    assert unpack_contact(HOME.packed, Family.IPV4, local=True) is one
    assert unpack_contacts([HOME.packed, HOME.packed], Family.IPV4, local=True)[1] is one
    assert shared_contact(HOME) is one


def test_a_bounded_number_is_shared_those_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POOL", module._Pool(1 << 16))
    share_contacts(20)
    one = contact_at(HOME.key, HOME.address)
    for number in range(100):
        assert unpack_contact(contact(number).packed, Family.IPV4, local=False) == contact(number)
        assert shared_contact(HOME) is one  # it is always in use
        assert len(module._POOL.young) + len(module._POOL.old) <= 20
    last = contact_at(contact(99).key, contact(99).address)
    assert shared_contact(contact(99)) is last
    first = contact(0)
    assert shared_contact(first) is first  # forgotten long ago


def test_whoever_proved_nothing_is_known_if_it_is_and_has_nobody_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POOL", module._Pool(4))
    known = contact_at(HOME.key, HOME.address)
    for number in range(100):
        stranger = stranger_at(number.to_bytes(32, "big"), HOME.address)
        assert stranger == Contact(number.to_bytes(32, "big"), HOME.address)
        assert stranger_at(stranger.key, stranger.address) is not stranger
    assert stranger_at(HOME.key, HOME.address) is known
    assert contact_at(HOME.key, HOME.address) is known
