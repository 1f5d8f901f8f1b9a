"""Who sent a callback: the TCP peer, or whom a trusted proxy names."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.errors import SettingsError
from upcall.listener import Sources

PROXY = "10.0.0.7"
LISTED = "192.0.2.100"
STRANGER = "198.51.100.1"


@pytest.fixture
def behind():
    """Return the sources of a listener behind a proxy."""
    return Sources(["10.0.0.0/24"], listed=[LISTED])


def told(sources, peer, forwarded=None):
    source = sources.of(sources.peer(peer), forwarded)
    return source.address, source.listed


@pytest.mark.parametrize("forwarded", [None, "", LISTED, f"{LISTED}, {LISTED}"])
def test_the_peer_decides(forwarded, behind):
    """What somebody who is no trusted proxy writes into the header means nothing."""
    assert told(behind, STRANGER, forwarded) == (STRANGER, False)
    assert told(Sources(listed=[LISTED]), STRANGER, forwarded) == (STRANGER, False)
    assert told(Sources(listed=[LISTED]), LISTED, forwarded) == (LISTED, True)


@pytest.mark.parametrize(
    ("forwarded", "source"),
    [
        (LISTED, (LISTED, True)),
        (STRANGER, (STRANGER, False)),
        (f"{LISTED}, {STRANGER}", (STRANGER, False)),
        (f"{STRANGER},{LISTED}", (LISTED, True)),
        (f"{LISTED}, 10.0.0.8", (LISTED, True)),
        (f"{LISTED} , 10.0.0.8 ,10.0.0.9", (LISTED, True)),
        (f"garbage, {LISTED}", (LISTED, True)),
        (f"{LISTED}, garbage", (PROXY, False)),
        (f"{LISTED}, unknown", (PROXY, False)),
        (f"{LISTED},", (PROXY, False)),
        (f"{LISTED}, ,", (PROXY, False)),
        ("10.0.0.8, 10.0.0.9", (PROXY, False)),
        (f"{LISTED}:4711", (LISTED, True)),
        (f'"{LISTED}:4711"', (LISTED, True)),
        (f"[::ffff:{LISTED}]:4711", (LISTED, True)),
        (f"::ffff:{LISTED}", (LISTED, True)),
        ("[2001:db8::1]:80", ("2001:db8::1", False)),
        ("[2001:db8::1]", ("2001:db8::1", False)),
        ("2001:db8::1", ("2001:db8::1", False)),
        ("192.0.2.100.evil.example", (PROXY, False)),
        ("3232235777", (PROXY, False)),
        ("0300.0.2.100", (PROXY, False)),
        ("192.0.2.1\u00b2", (PROXY, False)),
    ],
)
def test_behind_a_proxy(behind, forwarded, source):
    """The header is read from the right, past our own proxies, and only to the first address that is none."""
    assert told(behind, PROXY, forwarded) == source


def test_a_proxy_that_names_nobody(behind):
    """A proxy that sets no header hides who sends: that is flagged, not trusted."""
    source = behind.of(behind.peer(PROXY), None)
    assert (source.address, source.listed, source.evidence) == (PROXY, False, "the proxy names no source")


def test_who_fills_the_header(behind):
    """A forged header that is far too long changes nothing, and is not remembered."""
    forged = f"{LISTED}," * 100_000
    assert told(behind, PROXY, f"{forged}{STRANGER}") == (STRANGER, False)
    assert told(behind, PROXY, f"{forged}10.0.0.8," + "10.0.0.9," * 40 + "10.0.0.9") == (PROXY, False)
    assert behind._forwarded.cache_info().currsize == 0


def test_an_ipv4_peer_on_an_ipv6_socket(behind):
    """A peer that comes as an IPv4 address in IPv6's form is that IPv4 address, for each rule."""
    assert behind.peer(f"::ffff:{PROXY}").is_proxy
    assert told(behind, f"::ffff:{PROXY}", LISTED) == (LISTED, True)
    assert told(behind, f"::ffff:{LISTED}") == (LISTED, True)
    assert behind.peer(f"::ffff:{LISTED}").site == LISTED


def test_from_this_machine(behind):
    """A callback from this machine is neither listed nor not: a tunnel or a test sent it."""
    assert told(behind, "127.0.0.1") == ("127.0.0.1", None)
    assert told(behind, "::1") == ("::1", None)
    assert told(Sources(["127.0.0.1"], listed=[LISTED]), "127.0.0.1") == ("127.0.0.1", False)


@pytest.mark.parametrize(
    ("peer", "forwarded", "refused"),
    [
        (LISTED, None, False),
        (STRANGER, None, True),
        ("127.0.0.1", None, True),
        (PROXY, LISTED, False),
        (PROXY, "", True),
    ],
)
def test_refusing(peer, forwarded, refused):
    """Told to refuse, only what certainly comes from a listed address passes; told nothing, all does."""
    strict = Sources(["10.0.0.0/24"], listed=[LISTED], refuse_unlisted=True)
    assert strict.refuses(strict.of(strict.peer(peer), forwarded)) is refused
    open_to_all = Sources(["10.0.0.0/24"], listed=[LISTED])
    assert not open_to_all.refuses(open_to_all.of(open_to_all.peer(peer), forwarded))


@pytest.mark.parametrize(
    "text", ["0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/7", "2000::/3", "::/15", "::ffff:0:0/96"]
)
def test_a_proxy_that_is_everybody(text):
    """A network so wide that anybody could forge a source makes the check meaningless, and is refused."""
    with pytest.raises(SettingsError, match="anybody could forge"):
        Sources([text])


@pytest.mark.parametrize("text", ["", "proxy", "10.0.0.0/33", "10.0.0.256", "10.0.0.0/24/24", "10.0.0.1:80"])
def test_a_proxy_that_is_none(text):
    """What is no address and no network is refused, with what to write."""
    with pytest.raises(SettingsError, match="no address and no network"):
        Sources([text])


@pytest.mark.parametrize("text", ["10.0.0.7", "10.0.0.7/24", " 10.0.0.0/8 ", "::ffff:10.0.0.7", "::ffff:10.0.0.0/120"])
def test_ways_to_write_a_proxy(text):
    """An address, a network, a network with bits set, and either in IPv6's form name the proxy."""
    assert Sources([text]).peer(PROXY).is_proxy


ADDRESSES = st.ip_addresses().map(str)
ANYTHING = st.text(st.characters(max_codepoint=255), max_size=20)


@given(st.lists(ADDRESSES | ANYTHING), ADDRESSES)
def test_nothing_on_the_left_counts(left, last):
    """Whatever strangers write to the left of what our proxy wrote, the source is who our proxy says."""
    sources = Sources(["10.0.0.0/24"], listed=[LISTED])
    forwarded = ", ".join([*left, last])
    written = ipaddress.ip_address(last)
    written = getattr(written, "ipv4_mapped", None) or written
    if not sources.peer(last).is_proxy:
        assert told(sources, PROXY, forwarded)[0] == str(written)


@given(ANYTHING | ADDRESSES, st.none() | st.text(st.characters(max_codepoint=255)))
def test_no_header_breaks_it(peer, forwarded):
    """Any peer and any header give a source; it is listed only where a listed address stands there."""
    sources = Sources(["10.0.0.0/24"], listed=[LISTED])
    address, listed = told(sources, peer, forwarded)
    assert listed is not True or address == LISTED
    assert sources.peer(peer).is_proxy or address == sources.peer(peer).address
