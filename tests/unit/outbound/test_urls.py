"""URLs as the sender reads them."""

from __future__ import annotations

import pytest

from upcall.outbound.urls import Destination


@pytest.mark.parametrize(
    ("url", "origin", "host", "port", "head"),
    [
        ("http://a.example", "http://a.example", "a.example", 80, b"POST / HTTP/1.1\r\nHost: a.example\r\n"),
        (
            "https://A.example:8443/x/y?z=1#part",
            "https://a.example:8443",
            "a.example",
            8443,
            b"POST /x/y?z=1 HTTP/1.1\r\nHost: a.example:8443\r\n",
        ),
        ("https://a.example:443/?", "https://a.example", "a.example", 443, b"POST / HTTP/1.1\r\nHost: a.example\r\n"),
        ("http://[::1]/", "http://[::1]", "::1", 80, b"POST / HTTP/1.1\r\nHost: [::1]\r\n"),
        ("http://[::1]:81/", "http://[::1]:81", "::1", 81, b"POST / HTTP/1.1\r\nHost: [::1]:81\r\n"),
        (
            "http://a/é %41%zz/../b;c=@:",
            "http://a",
            "a",
            80,
            b"POST /%C3%A9%20%41%zz/../b;c=@: HTTP/1.1\r\nHost: a\r\n",
        ),
    ],
)
def test_what_is_read(url, origin, host, port, head):
    """A URL's parts go where they belong, the path as it stands, and what a request line cannot hold escaped."""
    read = Destination.of(url)
    assert (read.origin, read.host, read.port, read.head) == (origin, host, port, head)


@pytest.mark.parametrize(
    ("url", "name"),
    [("http://a.example/", None), ("https://a.example./", "a.example"), ("https://127.0.0.1/", "127.0.0.1")],
)
def test_whom_the_certificate_names(url, name):
    """A certificate is of the host in the URL; a name's last dot is not part of it."""
    assert Destination.of(url).server_name == name


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "[::1]", "10.0.0.1.", "0X7F.0.0.1"])
def test_what_may_be_an_address(host):
    """What some reader takes for an address is checked as one, and never resolved."""
    assert Destination.of(f"http://{host}/").is_address


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/\r\nHost: b.example",
        "http://a.exa\nmple/",
        "http://a.example/\tx",
        "http://a.example/\0",
        " http://a.example/",
        "http://a.example/ ",
        "http://user@a.example/",
        "http://user:secret@a.example/",
        "http://@a.example/",
        "http://a.example\\@b.example/",
        "http://a%2eexample/",
        "http://a_b!c/",
        "http://bücher.example/",
        "http://a b/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:secret/",
        "http://[::1/secret",
        "http://\u2100secret.example/",
        "http://a/\ud800",
        "ftp://a.example/",
        "//a.example/",
        "https:///secret",
        "",
    ],
)
def test_what_is_refused(url):
    """What readers take for different things is refused, in words that show nothing of it."""
    with pytest.raises(ValueError, match=r"^its? ") as refused:
        Destination.of(url)
    assert "secret" not in str(refused.value)
