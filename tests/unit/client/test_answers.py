"""What each answer reads as: the table of results, and the table of errors."""

from __future__ import annotations

import copy
import json
import pickle

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from upcall import (
    AnsweredError,
    CallbackSummary,
    CredentialsError,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2ResultException,
    FotaV2SuccessResult,
    NoAnswerError,
    RequestNotSentError,
    ThingSpaceError,
    UndecodableAnswerError,
)
from upcall.client.answers import Answer, read_complaint

ACCOUNT = "0000123456-00001"
URL = "https://host:50559/x"
BODY = FotaV2CallbackRegistrationRequest(url=URL)


@pytest.mark.parametrize(
    ("step", "url"),
    [
        ((200, {"url": URL}), URL),
        ((200, {"URL": URL}), URL),
        ((200, {"url": "http://10.0.0.1:50559/x"}), "http://10.0.0.1:50559/x"),
        ((200, [{"url": URL}]), URL),
        ((200, b"\xef\xbb\xbf" + json.dumps({"url": URL}).encode()), URL),
        ((200, json.dumps({"url": URL}).encode("utf-16")), URL),
        ((200, b""), None),
        ((204, b""), None),
        ((200, b" \r\n"), None),
        ((200, {}), None),
        ((200, b"{ }"), None),
        ((200, []), None),
        ((200, b"null"), None),
        ((200, {"url": ""}), None),
        ((200, {"url": None}), None),
        ((404, b""), None),
        ((404, {"errorCode": "NOT_FOUND", "errorMessage": "no callback"}), None),
    ],
)
def test_list_reads_every_way_to_say_what_is_registered(client, provider, step, url):
    """A URL is found under either spelling, and an empty answer of any kind reads as none registered."""
    provider.script.append(step)
    assert client.callbacks.list_registered_callbacks(ACCOUNT) == CallbackSummary(url=url)


@pytest.mark.parametrize(
    "step",
    [
        (200, b"<html>login</html>"),
        (200, b'{"url": "https://ho'),
        (200, {"message": "hello"}),
        (200, {"fault": {"code": "900906"}}),
        (200, {"url": 7}),
        (200, [{"url": URL}, {"url": URL}]),
        (200, b'"https://host"'),
        (200, b"[" * 100_000),
    ],
)
def test_list_never_takes_an_odd_answer_for_none_registered(client, provider, step):
    """What is neither empty nor a URL raises, with the status kept: a guard that read it as none would re-register."""
    provider.script.append(step)
    with pytest.raises(UndecodableAnswerError) as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (caught.value.status_code, caught.value.attempts) == (200, 1)


@pytest.mark.parametrize("step", [(404, {"fault": {"code": "404"}}), (404, b"<html>not found</html>")])
def test_list_tells_a_gateways_404_from_none_registered(client, provider, step):
    """A 404 that the service itself did not write is an error: the base URL is wrong."""
    provider.script.append(step)
    with pytest.raises(AnsweredError) as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert caught.value.status_code == 404


@pytest.mark.parametrize("method", ["register_callback", "update_callback"])
def test_writes_return_the_documented_result_and_keep_the_rest(client, provider, method):
    """Both writes return the URL that the provider says it registered, and members that nobody knows are kept."""
    provider.script.append((200, {"url": URL, "createdBy": "me"}))
    result = getattr(client.callbacks, method)(ACCOUNT, BODY)
    assert result == FotaV2CallbackRegistrationResult(url=URL, extra={"createdBy": "me"})


@pytest.mark.parametrize("method", ["register_callback", "update_callback"])
@pytest.mark.parametrize("step", [(200, b""), (204, b""), (200, {}), (200, {"url": ""}), (201, b"OK"), (200, [])])
def test_a_write_without_the_documented_result_raises_with_its_status(client, provider, method, step):
    """A 2xx that does not say what was registered is never passed off as a registration."""
    provider.script.append(step)
    with pytest.raises(UndecodableAnswerError) as caught:
        getattr(client.callbacks, method)(ACCOUNT, BODY)
    assert caught.value.status_code == step[0]
    assert "probably carried out" in str(caught.value)


@pytest.mark.parametrize(
    ("step", "success"),
    [((200, {"success": True}), True), ((200, {"success": False}), False), ((200, b""), True), ((204, b""), True)],
)
def test_deregister_reads_an_empty_success_as_true(client, provider, step, success):
    """An empty 2xx says that the listener is gone; a success of false is returned as it is."""
    provider.script.append(step)
    assert client.callbacks.deregister_callback(ACCOUNT) == FotaV2SuccessResult(success=success)


def test_deregister_refuses_a_page_in_place_of_its_result(client, provider):
    """A 200 that is some web page is no success."""
    provider.script.append((200, b"<html>"))
    with pytest.raises(UndecodableAnswerError):
        client.callbacks.deregister_callback(ACCOUNT)


@pytest.mark.parametrize(
    "complaint",
    [
        (
            {"errorCode": "INVALID_PARAMETER", "errorMessage": "Inactive account"},
            "INVALID_PARAMETER",
            "Inactive account",
        ),
        ({"errorCode": 7}, "7", None),
        ({"fault": {"code": "900906", "message": "No matching resource"}}, "900906", "No matching resource"),
        ({"fault": "odd"}, None, "odd"),
        ({"error": "invalid_request", "error_description": "bad"}, "invalid_request", "bad"),
        (b"<am:fault xmlns:am='x'><am:code>404</am:code><am:message>No</am:message></am:fault>", "404", "No"),
        (b"<html>Bad Request</html>", None, None),
        (b"", None, None),
        (b'{"errorCode": "INV', None, None),
        (b"\xff\xfe\xfa", None, None),
        ([1], None, None),
        ({"error": {"code": 1}}, None, None),
    ],
)
@pytest.mark.parametrize("method", ["list_registered_callbacks", "register_callback", "deregister_callback"])
def test_every_400_of_the_callbacks_is_the_documented_exception(client, provider, method, complaint):
    """Whatever a 400 holds, it raises FotaV2ResultException with the code and message that it gives, or None."""
    body, code, message = complaint
    provider.script.append((400, body, {"X-Request-Id": "req-1"}))
    arguments = (ACCOUNT, BODY) if method == "register_callback" else (ACCOUNT,)
    with pytest.raises(FotaV2ResultException) as caught:
        getattr(client.callbacks, method)(*arguments)
    error = caught.value
    assert (error.status_code, error.error_code, error.error_message) == (400, code, message)
    assert (error.operation, error.request_id, error.attempts) == (method, "req-1", 1)
    assert error.elapsed_seconds >= 0


@pytest.mark.parametrize("status", [402, 405, 409, 413, 418, 501, 521])
def test_other_error_statuses_raise_at_once(client, provider, status):
    """A status that says neither "again" nor "who are you" is an AnsweredError after one attempt."""
    provider.script.append((status, b"<html>x</html>"))
    with pytest.raises(AnsweredError) as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (caught.value.status_code, caught.value.attempts) == (status, 1)


@pytest.mark.parametrize("location", ["https://elsewhere/login", "http://[bad", ""])
def test_redirects_are_never_followed(client, provider, location):
    """A redirect is an error, so that no token is carried to another host."""
    provider.script.append((302, b"", {"Location": location}))
    with pytest.raises(AnsweredError, match="Redirects are not followed") as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (caught.value.status_code, len(provider.calls)) == (302, 1)


def test_a_body_that_cannot_be_decompressed_keeps_its_status(client, provider):
    """Broken compression is told as an undecodable answer, not as a lost one."""
    provider.script.append(
        lambda _: httpx2.Response(200, stream=httpx2.ByteStream(b"not gzip"), headers={"Content-Encoding": "gzip"})
    )
    with pytest.raises(UndecodableAnswerError, match="decompressed") as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert caught.value.status_code == 200


class _Cut(httpx2.SyncByteStream):
    def __iter__(self):
        yield b'{"url": '
        raise httpx2.RemoteProtocolError("peer closed connection without sending complete message body")


def test_an_answer_that_is_cut_off_is_asked_for_again(client, provider):
    """Half a document of a call that is safe to repeat is asked for again."""
    provider.script.append(lambda _: httpx2.Response(200, stream=_Cut()))
    assert client.callbacks.list_registered_callbacks(ACCOUNT).url == "https://host/x"
    assert len(provider.calls) == 2


def test_an_answer_that_is_always_cut_off_keeps_its_status(client, provider):
    """When repeating does not help, the status that did come is in the error."""
    provider.script.extend([lambda _: httpx2.Response(201, stream=_Cut())] * 4)
    with pytest.raises(UndecodableAnswerError, match="cut off") as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (caught.value.status_code, caught.value.attempts) == (201, 4)


def test_a_body_larger_than_any_answer_is_not_read_to_its_end(client, provider, monkeypatch):
    """An endless body is cut at the cap."""
    monkeypatch.setattr("upcall.client.wire.reading.MAX_BODY_BYTES", 100)
    provider.script.append((200, b"x" * 101))
    with pytest.raises(UndecodableAnswerError, match="larger than any answer"):
        client.callbacks.list_registered_callbacks(ACCOUNT)


def test_no_connection_is_told_as_not_sent(client, provider):
    """When nothing left the machine, every kind of call is tried again, and the error says that nothing was sent."""
    provider.script.extend([httpx2.ConnectError("[Errno 111] Connection refused")] * 4)
    with pytest.raises(RequestNotSentError, match="Connection refused") as caught:
        client.campaigns_v2.schedule_campaign_firmware_upgrade(ACCOUNT, {})
    assert (caught.value.attempts, caught.value.status_code) == (4, None)


def test_a_certificate_that_is_not_trusted_is_not_tried_again(client, provider):
    """What can never succeed is said at once."""
    provider.script.append(httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"))
    with pytest.raises(RequestNotSentError) as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert caught.value.attempts == 1


@pytest.mark.parametrize("lost", [httpx2.ReadTimeout("x"), httpx2.RemoteProtocolError("Server disconnected")])
def test_a_lost_answer_is_asked_for_again_only_where_that_is_safe(client, provider, lost):
    """A callback write is repeated; scheduling a campaign is not, because twice makes two."""
    provider.script.append(lost)
    assert client.callbacks.register_callback(ACCOUNT, BODY).url
    provider.script.append(lost)
    with pytest.raises(NoAnswerError, match="may have been carried out") as caught:
        client.campaigns_v2.schedule_campaign_firmware_upgrade(ACCOUNT, {})
    assert caught.value.attempts == 1


def test_a_campaign_answers_with_what_the_provider_sent(client, provider):
    """Campaign calls return the decoded object, and send what the SDK would to where it would."""
    provider.script.extend([(200, {"id": "c/1"}), (200, {"id": "c/1"}), (200, {"hasMoreData": False})])
    assert client.campaigns_v2.schedule_campaign_firmware_upgrade("a b", {"deviceList": []})["id"] == "c/1"
    client.campaigns_v2.get_campaign_information("a b", "c/1")
    client.software_management_reports_v2.get_campaign_device_status("a b", "c/1", "9900")
    assert [(request.method, request.url.raw_path.decode()) for request in provider.calls] == [
        ("POST", "/api/fota/v2/campaigns/a%20b"),
        ("GET", "/api/fota/v2/campaigns/a%20b/c%2F1"),
        ("GET", "/api/fota/v2/reports/a%20b/campaigns/c%2F1/devices?lastSeenDeviceId=9900"),
    ]


def test_reports_ask_for_what_is_given_and_for_no_more(client, provider):
    """A history is asked for with or without a status and a place to go on from, a device's by its identifier."""
    provider.script.extend([(200, {"campaignList": None})] * 3 + [(200, [{"id": "c"}])])
    reports = client.software_management_reports_v2
    assert reports.get_campaign_history_by_status(ACCOUNT) == {"campaignList": None}
    reports.get_campaign_history_by_status("a b", "CampaignEnded")
    reports.get_campaign_history_by_status("a b", "CampaignEnded", last_seen_campaign_id="c 1")
    assert reports.get_device_firmware_upgrade_history("a b", "9900/1") == [{"id": "c"}]
    assert [(request.method, request.url.raw_path.decode()) for request in provider.calls] == [
        ("GET", f"/api/fota/v2/reports/{ACCOUNT}/campaigns"),
        ("GET", "/api/fota/v2/reports/a%20b/campaigns?campaignStatus=CampaignEnded"),
        ("GET", "/api/fota/v2/reports/a%20b/campaigns?campaignStatus=CampaignEnded&lastSeenCampaignId=c+1"),
        ("GET", "/api/fota/v2/reports/a%20b/devices/9900%2F1"),
    ]


@pytest.mark.parametrize("nothing", [b"", b"{}", b"[]", b"null"])
def test_a_report_of_nothing_is_an_empty_one(client, provider, nothing):
    """Where there is nothing to report, an answer without a body is no error."""
    provider.script.extend([(200, nothing)] * 2)
    reports = client.software_management_reports_v2
    assert reports.get_campaign_history_by_status(ACCOUNT) == {}
    assert reports.get_device_firmware_upgrade_history(ACCOUNT, "990013907835573") == []


@pytest.mark.parametrize("document", [{"id": "c"}, ["c"], "c"])
def test_a_device_history_that_is_no_list_of_objects_is_refused(client, provider, document):
    """An answer of another shape is an error, and not handed on as something that it is not."""
    provider.script.append((200, document))
    with pytest.raises(UndecodableAnswerError, match="no JSON array of objects"):
        client.software_management_reports_v2.get_device_firmware_upgrade_history(ACCOUNT, "990013907835573")


@pytest.mark.parametrize("device_id", ["", " ", ".", ".."])
def test_a_device_that_is_no_segment_of_a_path_is_refused(client, provider, device_id):
    """An identifier that would ask for something else is refused, and nothing is sent."""
    with pytest.raises(ValueError, match="device_id must not be"):
        client.software_management_reports_v2.get_device_firmware_upgrade_history(ACCOUNT, device_id)
    with pytest.raises(TypeError, match="device_id must be a str, not int"):
        client.software_management_reports_v2.get_device_firmware_upgrade_history(ACCOUNT, 990013907835573)
    assert provider.requests == []


def test_what_each_callback_operation_puts_on_the_wire(client, provider):
    """Verb, path, media types, both tokens and the body are the documented ones, and a dict body does as a model."""
    provider.script.extend([(200, {"url": URL})] * 3 + [(200, {"success": True})])
    client.callbacks.list_registered_callbacks(ACCOUNT)
    client.callbacks.update_callback(ACCOUNT, {"url": URL})
    client.callbacks.register_callback(ACCOUNT, BODY)
    client.callbacks.deregister_callback(ACCOUNT)
    assert [request.method for request in provider.calls] == ["GET", "PUT", "POST", "DELETE"]
    assert {request.url.path for request in provider.calls} == {f"/api/fota/v2/callbacks/{ACCOUNT}"}
    assert [request.content for request in provider.calls] == [b"", b'{"url":"%b"}' % URL.encode()] * 1 + [
        b'{"url":"%b"}' % URL.encode(),
        b"",
    ]
    for request in provider.calls:
        assert request.headers["accept"] == "application/json"
        assert request.headers.get("content-type") == ("application/json" if request.content else None)
        assert request.headers["user-agent"].startswith("upcall/")


@pytest.mark.parametrize(
    ("account", "body", "error"),
    [
        (123456, BODY, TypeError),
        ("", BODY, ValueError),
        (ACCOUNT, {"url": "http://localhost/x"}, ValueError),
        (ACCOUNT, {"callback": URL}, ValueError),
        (ACCOUNT, URL, TypeError),
        (ACCOUNT, None, TypeError),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_sent(client, provider, account, body, error):
    """Local checks raise ValueError or TypeError, and not even a token is fetched."""
    with pytest.raises(error):
        client.callbacks.register_callback(account, body)
    assert provider.requests == []


def test_allow_http_admits_loopback_listeners(make_client):
    """With allow_http a sandbox can be given a plain http listener on this machine, and no other."""
    client = make_client(allow_http=True)
    client.callbacks.register_callback(ACCOUNT, {"url": "http://127.0.0.1:8080/x"})
    with pytest.raises(ValueError, match="loopback"):
        client.callbacks.register_callback(ACCOUNT, {"url": "http://192.0.2.1/x"})


@pytest.mark.parametrize(
    "text",
    [
        "token canary-bearer-1 and canary-session-1",
        "password canary-password",
        "callback https://host/callbacks/canary-path-token is bad",
        "IMEI 990013907835573 is unknown",
    ],
)
def test_an_error_shows_nothing_that_the_provider_echoes(client, provider, text):
    """Secrets, URL tokens and device identifiers in a provider's text do not reach str or repr."""
    provider.script.append((400, {"errorCode": "X", "errorMessage": text}))
    with pytest.raises(FotaV2ResultException) as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    shown = f"{caught.value} {caught.value!r}"
    assert "canary" not in shown
    assert "990013907835573" not in shown
    assert not any(f"canary-{kind}" in str(vars(caught.value)) for kind in ("bearer", "session", "password", "secret"))


def test_every_kind_of_error_survives_pickle_and_copy(make_client, provider):
    """An error that crosses a process keeps its facts and its text."""
    scripts = [(400, {"errorCode": "X"}), (403, b""), (200, b"<"), httpx2.ReadTimeout("x"), httpx2.ConnectError("x")]
    kinds = [FotaV2ResultException, CredentialsError, UndecodableAnswerError, NoAnswerError, RequestNotSentError]
    for step, kind in zip(scripts, kinds, strict=True):
        provider.script.extend([step] * 4)
        with pytest.raises(kind) as caught:
            make_client(max_retries=0).callbacks.list_registered_callbacks(ACCOUNT)
        provider.script.clear()
        for twin in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
            assert (type(twin), str(twin), vars(twin)) == (kind, str(caught.value), vars(caught.value))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(
    status=st.integers(100, 599),
    body=st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["url", "URL", "errorCode", "fault", "error", "x"]), inner, max_size=3
                )
            ),
            max_leaves=6,
        ).map(lambda value: json.dumps(value).encode()),
    ),
)
def test_any_answer_is_a_result_or_an_error_of_ours_with_its_status(make_world, status, body):
    """No status and no body makes the client raise anything but its own errors, and the status always survives."""
    from upcall.client import operations

    def answer(request):
        if "oauth2" in request.url:
            return Answer(status=200, body=b'{"access_token": "canary-bearer"}')
        if "login" in request.url:
            return Answer(status=200, body=b'{"sessionToken": "canary-session"}')
        return Answer(status=status, body=body)

    world = make_world(answer)
    for call in (
        operations.list_registered_callbacks(ACCOUNT),
        operations.register_callback(ACCOUNT, BODY),
        operations.deregister_callback(ACCOUNT),
    ):
        try:
            seen = world.run(world.exchange.run(call)).answer.status
        except ThingSpaceError as error:
            seen = error.status_code
            kind = type(error)
        else:
            kind = None
        assert seen == status
        assert (kind is FotaV2ResultException) == (status == 400)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_complaint_or_none(body):
    """Reading an error body never fails."""
    read_complaint(Answer(status=500, body=body))
