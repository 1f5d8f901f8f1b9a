"""Forwards: what is sent, and what each answer means."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import json

import pytest
from standardwebhooks import Webhook

from upcall.dispatch import GiveUp, RetryLater
from upcall.dispatch.subscribers import forward as module
from upcall.dispatch.subscribers.forward import Forward, cloud_event, retry_after_seconds
from upcall.dispatch.subscribers.signing import Signer
from upcall.errors import DeliveryError, TargetRefusedError

SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


@pytest.fixture
async def forward(receiver):
    """Make a forward to the receiver."""
    made = []

    def make(path="/hook", *, raw=False, secret=SECRET, **options):
        signer = Signer.parse(secret, place="the test") if secret else None
        made.append(Forward(receiver.url + path, raw=raw, signer=signer, **options))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


class TestCloudEvents:
    def test_the_whole_of_one(self, event):
        """An event is a CloudEvent in structured JSON, with the callback as its data."""
        given = event(campaign_id="c/1", kind="upgradeFinished")
        document = json.loads(cloud_event(given))
        assert document.pop("data") == json.loads(given.raw)
        assert document == {
            "specversion": "1.0",
            "id": given.key,
            "source": "/thingspace/accounts/0000000001-00001" if given.account == "0000000001-00001"
            else f"/thingspace/accounts/{given.account}",
            "type": "com.verizon.thingspace.fota.upgradeFinished",
            "time": "2027-01-15T08:00:00.000000Z",
            "subject": "c/1",
            "datacontenttype": "application/json",
            "upcallid": "7",
        }  # fmt: skip

    def test_the_same_bytes_each_time(self, event):
        """Each attempt sends the same bytes."""
        assert cloud_event(event()) == cloud_event(event())

    @pytest.mark.parametrize(
        "body", [b"\xff\0", b'{"a":NaN}', b'"\xff"', '{"a":1}'.encode("utf-16"), b"", b"[" * 99999]
    )
    def test_what_is_no_strict_json(self, event, body):
        """A body that no strict JSON reader takes is carried as bytes."""
        document = json.loads(cloud_event(event(body)))
        assert base64.b64decode(document["data_base64"]) == body
        assert document["datacontenttype"] == "application/octet-stream"
        assert "data" not in document

    def test_what_is_not_known(self, event):
        """Without kind, account and campaign it still is a CloudEvent."""
        document = json.loads(cloud_event(event(b"{}", account=None)))
        assert (document["source"], document["type"]) == ("/thingspace", "com.verizon.thingspace.fota.unknown")
        assert "subject" not in document

    def test_what_no_provider_sent(self, event):
        """What was made of reports says so, and what the guard says bears neither the provider's name nor its type."""
        made = json.loads(cloud_event(event(origin="reconciled", kind="upgradeProgress", account="a")))
        assert (made["upcallorigin"], made["type"]) == ("reconciled", "com.verizon.thingspace.fota.upgradeProgress")
        said = json.loads(cloud_event(event(b'{"type":"registration.drift"}', origin="guard", account="a")))
        assert (said["upcallorigin"], said["type"]) == ("guard", "upcall.registration.drift")
        assert (said["source"], made["source"]) == ("/upcall/accounts/a", "/thingspace/accounts/0000123456-00001")

    def test_passwords_are_blanked(self, event):
        """The password of a V1 message goes to nobody."""
        assert b"hunter2" not in cloud_event(event(b'{"password":"hunter2"}'))
        assert json.loads(cloud_event(event(b'{"password":"hunter2","a":1}')))["data"]["a"] == 1

    def test_accounts_are_quoted(self, event):
        """An account of any characters makes a valid reference."""
        assert json.loads(cloud_event(event(b"{}", account="a/b c")))["source"] == "/thingspace/accounts/a%2Fb%20c"


class TestSending:
    async def test_a_signed_cloud_event(self, receiver, forward, event):
        """A receiver verifies what it got with the specification's own library."""
        await forward("/hook?x=1")(event())
        ((path, headers, body),) = receiver.requests
        assert path == "/hook?x=1"
        assert headers["Content-Type"] == "application/cloudevents+json"
        assert headers["webhook-id"] == event().key
        Webhook(SECRET).verify(body, headers)

    async def test_without_a_secret(self, receiver, forward, event):
        """Without a secret there is an id to be idempotent by, and no signature."""
        await forward(secret=None)(event())
        ((_, headers, _),) = receiver.requests
        assert headers["webhook-id"] == event().key
        assert "webhook-signature" not in headers

    @pytest.mark.parametrize("body", [b'{"password": "hunter2"}', b"\xff\0 any bytes"])
    async def test_raw(self, receiver, forward, event, body):
        """A raw forward carries the body byte for byte."""
        await forward(raw=True)(event(body))
        ((_, headers, sent),) = receiver.requests
        assert (sent, headers["Content-Type"]) == (body, "application/json")

    async def test_a_user_name_in_the_url(self, receiver, forward, event):
        """A user name and a password in the URL go where a receiver looks for them, and into no failure."""
        sender = Forward(receiver.url.replace("//", "//us%40er:pa55:word@") + "/hook", raw=True, signer=None)
        receiver.answers.append((500, {}, b""))
        with pytest.raises(DeliveryError) as caught:
            await sender(event())
        await sender.aclose()
        ((path, headers, _),) = receiver.requests
        assert (path, base64.b64decode(headers["Authorization"].removeprefix("Basic "))) == (
            "/hook",
            b"us@er:pa55:word",
        )
        assert "pa55" not in str(caught.value)

    async def test_the_id_stays_and_the_time_moves(self, receiver, forward, event):
        """Each attempt carries the same id and body, signed for its own time."""
        times = iter([1000.0, 2000.0])
        sender = forward(clock=lambda: next(times))
        for _ in range(2):
            await sender(event())
        (_, first, body), (_, second, again) = receiver.requests
        assert (first["webhook-id"], body) == (second["webhook-id"], again)
        assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("1000", "2000")
        assert first["webhook-signature"] != second["webhook-signature"]

    async def test_it_opens_again(self, receiver, forward, event):
        """A forward that was closed sends again."""
        sender = forward()
        for _ in range(2):
            await sender(event())
            await sender.aclose()
        assert len(receiver.requests) == 2


class TestAnswers:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
    async def test_any_2xx_is_the_end(self, receiver, forward, event, status):
        """Any 2xx acknowledges, whatever its body."""
        receiver.answers.append((status, {}, b"thanks" if status != 204 else b""))
        await forward()(event())

    @pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 500, 503])
    async def test_others_are_failures(self, receiver, forward, event, status):
        """Any other answer fails, a redirect is not followed, and the failure shows neither path nor answer."""
        receiver.answers.append((status, {"Location": receiver.url + "/elsewhere"}, b"secret answer"))
        with pytest.raises(DeliveryError) as caught:
            await forward("/hook/token-abc")(event())
        assert f"answered {status}" in str(caught.value)
        assert "token-abc" not in str(caught.value)
        assert "secret" not in str(caught.value)
        assert len(receiver.requests) == 1

    async def test_gone(self, receiver, forward, event):
        """410 gives up at once."""
        receiver.answers.append((410, {}, b""))
        with pytest.raises(GiveUp, match="answered 410"):
            await forward()(event())

    @pytest.mark.parametrize(("status", "header", "seconds"), [(429, "7", 7), (503, "7", 7), (503, "999999", 3600)])
    async def test_retry_after(self, receiver, forward, event, *, status, header, seconds):
        """A receiver's wait is kept, up to an hour."""
        receiver.answers.append((status, {"Retry-After": header}, b""))
        with pytest.raises(RetryLater) as caught:
            await forward()(event())
        assert caught.value.seconds == seconds

    @pytest.mark.parametrize("status", [400, 500])
    async def test_retry_after_of_others(self, receiver, forward, event, status):
        """On another status the header means nothing."""
        receiver.answers.append((status, {"Retry-After": "7"}, b""))
        with pytest.raises(DeliveryError):
            await forward()(event())

    async def test_the_deadline(self, receiver, forward, event, monkeypatch):
        """A receiver that does not answer fails in time."""
        monkeypatch.setattr(module, "TOTAL_TIMEOUT_SECONDS", 0.05)
        receiver.hold = asyncio.Event()
        with pytest.raises(DeliveryError, match="within the time allowed"):
            await forward()(event())

    async def test_nobody_there(self, unused_tcp_port, event):
        """A receiver that is away fails with its origin named."""
        sender = Forward(f"http://127.0.0.1:{unused_tcp_port}/token-abc", raw=False, signer=None)
        with pytest.raises(DeliveryError) as caught:
            await sender(event())
        await sender.aclose()
        assert f"http://127.0.0.1:{unused_tcp_port}" in str(caught.value)
        assert "token-abc" not in str(caught.value)

    async def test_a_name_that_leads_to_a_clouds_credentials(self, event, monkeypatch):
        """A host that resolves to a link-local address is not sent to."""

        async def resolve(host, port):
            return ["169.254.169.254"]

        monkeypatch.setattr("upcall.outbound.poster.system_addresses", resolve)
        sender = Forward("http://receiver.example/", raw=False, signer=None)
        with pytest.raises(TargetRefusedError):
            await sender(event())
        await sender.aclose()

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [(None, 0), ("", 0), ("soon", 0), ("-1", 0), ("12", 12), (email.utils.formatdate(1060, usegmt=True), 60),
         (email.utils.formatdate(10, usegmt=True), 0), ("9" * 400, 1e9)],
    )  # fmt: skip
    def test_retry_after_in_both_forms(self, header, seconds):
        """Seconds and dates are read, anything else is nothing."""
        assert retry_after_seconds(header, wall_now=1000.0) == seconds
