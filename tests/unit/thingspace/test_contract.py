"""The bodies under the SDK's names, the environments, and the lists that carry their date."""

import ipaddress
from pathlib import Path

import msgspec
import pytest

import upcall.thingspace
from upcall.thingspace import (
    CALLBACK_PORTS,
    CALLBACK_SOURCES,
    ENVIRONMENTS,
    PRODUCTION,
    CallbackSummary,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2SuccessResult,
    reading,
)
from upcall.thingspace.decoding import MAX_DEPTH


def test_request_is_the_documented_body():
    """A registration sends one member, `url`."""
    body = msgspec.json.encode(FotaV2CallbackRegistrationRequest(url="https://host/x"))
    assert body == b'{"url":"https://host/x"}'


def test_answers_have_the_sdks_names():
    """The answers are built and read by the names that the official SDK gives them."""
    assert CallbackSummary().url is None
    assert FotaV2CallbackRegistrationResult(url="u").url == "u"
    assert FotaV2SuccessResult(success=True).success is True


@pytest.mark.parametrize("answer", [CallbackSummary(), FotaV2SuccessResult(success=False)])
def test_answers_are_values(answer):
    """An answer cannot be changed under its reader."""
    with pytest.raises(AttributeError):
        answer.extra = {}


def test_environments_are_roots():
    """Each environment is an https root without a trailing slash, under its own name."""
    assert ENVIRONMENTS["production"] is PRODUCTION
    for name, environment in ENVIRONMENTS.items():
        assert name == environment.name
        assert environment.base_url.startswith("https://")
        assert not environment.base_url.endswith("/")


def test_lists_carry_date_and_source():
    """A published list says when and where it was read, and holds what it should."""
    for published in (CALLBACK_SOURCES, CALLBACK_PORTS):
        assert len(published.read_on) == len("2026-11-22")
        assert published.source
        assert len(set(published.values)) == len(published.values)
    assert all(ipaddress.ip_address(address).is_global for address in CALLBACK_SOURCES.values)
    ports = [tuple(map(int, entry.split("-"))) for entry in CALLBACK_PORTS.values]
    assert all(0 < low <= high < 65536 for low, *_, high in ((*port, port[-1]) for port in ports))


def test_package_exports_are_sorted_and_there():
    """`upcall.thingspace.__all__` is exact and sorted as ruff sorts it."""
    names = upcall.thingspace.__all__
    assert all(hasattr(upcall.thingspace, name) for name in names)
    assert len(set(names)) == len(names)


def test_document_names_every_key_that_is_read():
    """The page on callback messages lists every key that the parser knows."""
    page = (Path(__file__).parents[3] / "docs" / "callback-messages.md").read_text(encoding="utf-8")
    known = reading._ENVELOPE_KEYS | reading._CAMPAIGN_KEYS | reading._DEVICE_KEYS | reading._SOFTWARE_KEYS
    assert [key for key in sorted(known) if f"`{key}`" not in page] == []
    assert f"more than {MAX_DEPTH} " in page
    assert f"up to {reading.MAX_DRIFT} lines" in page
