"""Addresses: their bytes, which of them may be asked, their text, and seed URLs."""

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.endpoints import (
    Address,
    Family,
    SeedUrl,
    is_acceptable,
    is_local,
    pack_address,
    parse_address,
    subnet,
    unpack_address,
)
from dht_atonce.errors import EndpointError, SeedUrlError, WireError
from dht_atonce.identity import Identity

SOMEBODY = Identity.generate(random.Random(1)).id

ports = st.integers(0, 65535)
addresses = st.builds(Address, st.ip_addresses().map(str), ports)
hosts = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,5}){0,2}", fullmatch=True) | st.ip_addresses().map(
    str
)

GLOBAL = ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "2a00:1450::1"]
LOCAL = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # the metadata service of most clouds
    "100.64.0.1",
    "::1",
    "fe80::1",
    "fd12:3456::1",
]
NEVER = [
    "0.0.0.0",
    "::",
    "224.0.0.251",
    "239.255.255.250",
    "255.255.255.255",
    "240.0.0.1",
    "ff02::fb",
    "ff0e::1",
    "::ffff:1.1.1.1",
    "::ffff:127.0.0.1",
    "fe80::1%eth0",
]


# --- bytes ---


@given(addresses)
def test_bytes_and_back(address: Address) -> None:
    data = pack_address(address)
    assert len(data) == (18 if address.family is Family.IPV6 else 6)
    again = unpack_address(data)
    assert ipaddress.ip_address(again.ip) == ipaddress.ip_address(address.ip)
    assert again.port == address.port
    assert pack_address(again) == data


def test_the_bytes_are_as_specified() -> None:
    assert pack_address(Address("192.0.2.7", 4660)).hex() == "c00002071234"
    assert pack_address(Address("2001:db8::7", 4660)).hex() == "20010db8000000000000000000000007" + "1234"


@given(st.binary(max_size=40).filter(lambda data: len(data) not in (6, 18)))
def test_bytes_of_another_length_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        unpack_address(data)


@given(st.binary(min_size=6, max_size=6) | st.binary(min_size=18, max_size=18), st.booleans())
def test_whatever_a_stranger_names_can_be_judged(data: bytes, local: bool) -> None:
    address = unpack_address(data)
    if is_acceptable(address, local=local):
        parsed = ipaddress.ip_address(address.ip)
        assert address.port >= 1024
        assert local or not parsed.is_private
        assert not parsed.is_multicast
        assert not parsed.is_unspecified


# --- which are acceptable ---


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_acceptable_outside_if_it_is_global_and_one_machines(ip: ipaddress.IPv4Address) -> None:
    assert is_acceptable(Address(str(ip), 4000), local=False) == (ip.is_global and not ip.is_multicast)


@pytest.mark.parametrize("octet", range(256))
def test_each_eighth_of_ipv4_is_judged_as_its_registry_says(octet: int) -> None:
    # All edges of the special ranges lie at or next to these.
    edges = ("0.0.0", "0.0.1", "0.2.1", "18.0.1", "51.100.1", "64.0.1", "128.0.1", "168.0.1", "254.1.1", "255.255.255")
    for rest in edges:
        ip = ipaddress.ip_address(f"{octet}.{rest}")
        assert is_acceptable(Address(str(ip), 4000), local=False) == (ip.is_global and not ip.is_multicast)


@given(st.ip_addresses(v=4) | st.integers(0, 255).map(lambda first: ipaddress.IPv4Address(first << 24)))
def test_an_ipv4_address_is_acceptable_in_a_local_network_if_it_can_be_a_hosts(ip: ipaddress.IPv4Address) -> None:
    is_nobodys = ip.is_unspecified or ip.is_multicast or ip.is_reserved
    assert is_acceptable(Address(str(ip), 4000), local=True) == (not is_nobodys)


@pytest.mark.parametrize("ip", GLOBAL)
def test_a_global_address_is_acceptable_everywhere(ip: str) -> None:
    assert is_acceptable(Address(ip, 4000), local=False)
    assert is_acceptable(Address(ip, 4000), local=True)
    assert not is_local(ip)


@pytest.mark.parametrize("ip", LOCAL)
def test_a_private_address_is_acceptable_in_local_networks_only(ip: str) -> None:
    assert not is_acceptable(Address(ip, 4000), local=False)
    assert is_acceptable(Address(ip, 4000), local=True)
    assert is_local(ip)


@pytest.mark.parametrize("ip", NEVER)
@pytest.mark.parametrize("local", [False, True])
def test_what_is_not_one_machine_is_never_acceptable(ip: str, local: bool) -> None:
    assert not is_acceptable(Address(ip, 4000), local=local)


@pytest.mark.parametrize(
    "ip",
    [
        "::7f00:1",  # IPv4-compatible, RFC 4291 section 2.5.5.1: deprecated
        "64:ff9b::10.0.0.1",  # NAT64, RFC 6052
        "2002:7f00:1::1",  # 6to4, RFC 3056
        "fec0::1",  # site-local, RFC 3879: deprecated
    ],
)
def test_a_private_address_in_another_dress_is_refused(ip: str) -> None:
    # Through a translating router these reach 127.0.0.1, 10.0.0.1 and their like.
    assert not is_acceptable(Address(ip, 4000), local=False)


@pytest.mark.parametrize("port", [0, 53, 123, 1023, 65536])
def test_a_system_port_is_refused(port: int) -> None:
    # Nobody's DNS or NTP server shall be asked in our name.
    assert not is_acceptable(Address("1.1.1.1", port), local=False)
    assert not is_acceptable(Address("127.0.0.1", port), local=True)


@pytest.mark.parametrize("port", [1024, 65535])
def test_other_ports_are_acceptable(port: int) -> None:
    assert is_acceptable(Address("1.1.1.1", port), local=False)


# --- subnets ---


def test_neighbours_share_a_subnet() -> None:
    assert subnet("192.0.2.1") == subnet("192.0.2.254") == bytes([192, 0, 2])
    assert subnet("192.0.2.1") != subnet("192.0.3.1")
    assert subnet("2001:db8:5::1") == subnet("2001:db8:5:ffff::2") == bytes.fromhex("20010db80005")
    assert subnet("2001:db8:5::1") != subnet("2001:db8:6::1")


# --- text ---


@given(addresses)
def test_text_and_back(address: Address) -> None:
    assert parse_address(str(address)) == address
    assert address.family is (Family.IPV6 if ":" in address.ip else Family.IPV4)


@given(addresses)
def test_a_bare_ip_gets_the_default_port(address: Address) -> None:
    assert parse_address(address.ip, default_port=address.port) == address


@given(addresses)
def test_a_port_that_is_given_is_not_replaced(address: Address) -> None:
    assert parse_address(str(address), default_port=1) == address


def test_ips_are_written_in_one_way() -> None:
    assert parse_address("[2001:0DB8:0::1]:4000") == Address("2001:db8::1", 4000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.2.3.4",
        "1.2.3.4:",
        ":4000",
        "1.2.3.4:65536",
        "1.2.3.4:-1",
        "1.2.3.4:+1",
        "1.2.3.4: 1",
        "1.2.3.4:٤",
        "1.2.3.4:4000:1",
        "1.2.3:4000",
        "1.2.3.04:4000",
        "localhost:4000",
        "[::1]",
        "[::g]:4000",
        "[[::1]]:4000",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(EndpointError):
        parse_address(text)


@pytest.mark.parametrize("text", ["2001:db8::1:4000", "::1:4000", "[::1:4000", "::1]:4000"])
def test_brackets_are_not_optional(text: str) -> None:
    # 2001:db8::1:4000 is also an IPv6 address without any port.
    with pytest.raises(EndpointError):
        parse_address(text)


def test_a_port_of_any_number_of_digits_is_refused_alike() -> None:
    with pytest.raises(EndpointError):
        parse_address("1.2.3.4:" + "1" * 5000)


@given(st.text(max_size=60))
def test_reading_text_raises_nothing_else(text: str) -> None:
    for default_port in (None, 4000):
        try:
            address = parse_address(text, default_port)
        except EndpointError:
            continue
        assert parse_address(str(address)) == address


# --- seed URLs ---


@given(hosts, st.integers(1, 65535))
def test_a_seed_url_and_back(host: str, port: int) -> None:
    url = SeedUrl(SOMEBODY, host, port)
    assert SeedUrl.parse(str(url)) == url
    assert str(SeedUrl.parse(f" {url}\n")) == str(url)


def test_a_seed_url_is_as_specified() -> None:
    assert str(SeedUrl(SOMEBODY, "seed.example.org", 4000)) == f"atonce://{SOMEBODY}@seed.example.org:4000"
    assert str(SeedUrl(SOMEBODY, "2001:db8::1", 4000)) == f"atonce://{SOMEBODY}@[2001:db8::1]:4000"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "does not begin with atonce://"),
        ("http://{id}@host:4000", "does not begin with atonce://"),
        ("atonce://host:4000", "has no PeerId"),
        ("atonce://{id}@host", "has no port"),
        ("atonce://{id}@host:0", "has no port"),
        ("atonce://{id}@:4000", "has no host"),
        ("atonce://{id}@host:65536", "out of range"),
        ("atonce://{id}@host:x", "atonce://PEERID@HOST:PORT"),
        ("atonce://{id}@2001:db8::1:4000", "atonce://PEERID@HOST:PORT"),
        ("atonce://{id}@[2001:db8::1:4000", "atonce://PEERID@HOST:PORT"),
        ("atonce://{id}@host:4000/", "nothing follows the port"),
        ("atonce://{id}@host:4000/path", "nothing follows the port"),
        ("atonce://{id}@host:4000?q=1", "nothing follows the port"),
        ("atonce://{id}@host:4000#x", "nothing follows the port"),
        ("atonce://{id}:secret@host:4000", "nothing follows the port"),
        ("atonce://{id}a@host:4000", "has 56 characters, this has 57"),
    ],
)
def test_the_message_says_which_part_is_wrong(text: str, says: str) -> None:
    with pytest.raises(SeedUrlError, match="seed URL") as caught:
        SeedUrl.parse(text.format(id=SOMEBODY))
    assert says in str(caught.value)


def test_a_typo_in_the_key_is_said() -> None:
    text = str(SOMEBODY)
    wrong = ("b" if text[0] == "a" else "a") + text[1:]
    with pytest.raises(SeedUrlError, match="typo"):
        SeedUrl.parse(f"atonce://{wrong}@host:4000")


@given(st.text(max_size=80) | st.text(max_size=30).map(lambda rest: f"atonce://{SOMEBODY}@{rest}"))
def test_reading_a_seed_url_raises_nothing_else(text: str) -> None:
    try:
        url = SeedUrl.parse(text)
    except SeedUrlError:
        return
    assert SeedUrl.parse(str(url)) == url
