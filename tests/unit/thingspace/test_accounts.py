"""Account names and callback URLs that cannot be right are refused before they are sent."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.thingspace import check_account, check_callback_url, is_loopback_host


@pytest.mark.parametrize("account", ["0000123456-00001", "0242078689-00001", "TestAccount-1", "a/b c", "acct.1", "..."])
def test_account_names_pass_unchanged(account):
    """What can be a name is sent as it is, leading zeros included."""
    assert check_account(account) == account


@pytest.mark.parametrize("account", [242078689, 0, True])
def test_number_is_refused_with_the_reason(account):
    """A number has lost the zeros that it began with, and the error says so."""
    with pytest.raises(TypeError, match="leading zeros"):
        check_account(account)


@pytest.mark.parametrize("account", [None, b"0000123456-00001", 1.5, ["0000123456-00001"]])
def test_other_types_are_refused(account):
    """Only a text is a name."""
    with pytest.raises(TypeError, match=f"not {type(account).__name__}"):
        check_account(account)


@pytest.mark.parametrize("account", ["", " ", ".", "..", " 0000123456-00001", "0000123456-00001\n", "a\0b", "\ud800"])
def test_text_that_is_no_name_is_refused(account):
    """A name that would vanish from the path, or that UTF-8 cannot hold, is refused with a message that prints."""
    with pytest.raises(ValueError, match="account must not be") as caught:
        check_account(account)
    assert str(caught.value).isprintable()


SEED_URLS = [
    "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx",
    "https://10.120.102.147:50559/CallbackListener/FirmwareServiceMessages.asmx",
]


@pytest.mark.parametrize(
    "url",
    [
        *SEED_URLS,
        "https://listener.example",
        "HTTPS://Listener.Example/callbacks/t0ken",
        "https://listener.example.:443/x",
        "https://[2001:db8::1]:50559/x",
        "https://xn--bcher-kva.example/x",
        "https://host/x?y=%20#z",
        "https://host:/x",
        "https://localhost/x",
    ],
)
def test_https_urls_pass_unchanged(url):
    """An https URL with a host passes as it is; its port and its address are the provider's to judge."""
    assert check_callback_url(url) == url
    assert check_callback_url(url, allow_http=True) == url


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8000/x", "http://LOCALHOST./x", "http://127.0.0.1/x", "http://127.9.9.9/", "http://[::1]:1/x"],
)
def test_http_passes_to_loopback_when_allowed(url):
    """Plain http is for a sandbox: allowed by option, to this machine alone."""
    assert check_callback_url(url, allow_http=True) == url
    with pytest.raises(ValueError, match="is not https"):
        check_callback_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/x",
        "http://listener.example/x",
        "http://localhost.example/x",
        "http://127.0.0.1.example/x",
        "http://127.0.0.1./x",
        "http://0.0.0.0/x",
        "http://[::]/x",
    ],
)
def test_http_elsewhere_is_refused_even_when_allowed(url):
    """Allowing http does not let a message leave this machine in clear."""
    with pytest.raises(ValueError, match="loopback hosts only"):
        check_callback_url(url, allow_http=True)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "names no host"),
        ("listener.example/x", "names no host"),
        ("https:///x", "names no host"),
        ("https:listener.example", "names no host"),
        ("https://:443/x", "names no host"),
        ("ftp://host/x", "is not https"),
        ("//host/x", "is not https"),
        ("https://host:65536/x", "cannot be read"),
        ("https://host:x/x", "cannot be read"),
        ("https://[::1/x", "cannot be read"),
        ("https://host:0/x", "cannot be reached"),
        ("https://./x", "cannot be reached"),
        ("https://a..b/x", "cannot be reached"),
        ("https://[::g]/x", "cannot be re"),
        ("https://[v1.a:b]/x", "cannot be reached"),
        ("https://host/a b", "a space or a control character"),
        (" https://host/", "a space or a control character"),
        ("https://host/\r\nx", "a space or a control character"),
        ("https://host/\0", "a space or a control character"),
        ("https://host/\ud800", "a space or a control character"),
        ("https://bücher.example/x", "xn--"),
        ("https://host\\@evil.example/x", "no URL may"),
        ("https://host/{token}", "no URL may"),
        ("https://user:secret@host/x", "must not name a user"),
        ("https://@host/x", "must not name a user"),
    ],
)
def test_urls_that_cannot_be_right_are_refused(url, why):
    """A URL that nothing can be POSTed to is refused with the reason."""
    with pytest.raises(ValueError, match=why) as caught:
        check_callback_url(url)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("url", [None, 1, b"https://host/"])
def test_url_of_another_type_is_refused(url):
    """Only a text is a URL."""
    with pytest.raises(TypeError, match=f"not {type(url).__name__}"):
        check_callback_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://host/s3cr3t",
        "ftp://host/s3cr3t",
        "s3cr3t",
        "https:///s3cr3t",
        "https://u:s3cr3t@h/",
        "https://h:0/s3cr3t",
    ],
)
def test_messages_show_no_token(url):
    """An error about a URL shows neither its path nor a password, because they end up in logs."""
    for allow_http in (True, False):
        with pytest.raises(ValueError) as caught:
            check_callback_url(url, allow_http=allow_http)
        assert "s3cr3t" not in str(caught.value)


@given(st.text(max_size=40) | st.from_regex(r"https?://[a-z@:\[\]0-9./%]{0,20}", fullmatch=True))
def test_any_text_is_a_url_or_refused(url):
    """Checking a URL gives that URL or a ValueError, nothing else."""
    with contextlib.suppress(ValueError):
        assert check_callback_url(url, allow_http=True) == url


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost", "localhost.", "127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"]
)
def test_loopback_hosts(host):
    """These reach this machine and no other."""
    assert is_loopback_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "localhost..",
        "localho\u017ft",  # a long s, which case folding would turn into an s
        "foo.localhost",
        "127.0.0.1.",
        "127.1",
        "128.0.0.1",
        "0.0.0.0",
        "::",
        "::ffff:10.0.0.1",
        "localhost.example",
        "10.0.0.1",
    ],
)
def test_hosts_that_may_be_elsewhere(host):
    """A name that a resolver may answer otherwise is not taken for this machine."""
    assert not is_loopback_host(host)
