"""Signatures: what another implementation of Standard Webhooks accepts."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from upcall.dispatch.subscribers.signing import Signer
from upcall.errors import SettingsError

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()


@pytest.mark.parametrize("secrets", [SECRET, f"{OTHER} {SECRET}\n", SECRET.removeprefix("whsec_"), SECRET.rstrip("=")])
@pytest.mark.parametrize("body", ['{"a":1}', "{}", '{"ü":"€"}'])
def test_the_reference_accepts_them(secrets, body):
    """What we sign, with any of our secrets, the specification's own library verifies."""
    headers = Signer.parse(secrets, place="there").headers("key-1", int(time.time()), body.encode())
    Webhook(SECRET).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + " ", headers)


def test_bodies_that_are_no_text():
    """A body of any bytes can be signed."""
    headers = Signer.parse(SECRET, place="there").headers("key-1", 1, b"\xff\0")
    assert headers["webhook-signature"].startswith("v1,")


@pytest.mark.parametrize("secret", ["whsec_!!!", "whsec_", "whsec_c2hvcnQ=", "whsec_" + "A" * 400, "pässword"])
def test_secrets_that_cannot_be_used(secret):
    """A secret that is no base64, or of a length that the specification rules out, is refused and not shown."""
    with pytest.raises(SettingsError) as caught:
        Signer.parse(secret, place="UPCALL_FORWARD_SECRET")
    assert "UPCALL_FORWARD_SECRET" in str(caught.value)
    assert secret.removeprefix("whsec_") not in str(caught.value) or secret == "whsec_"
