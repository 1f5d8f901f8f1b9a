"""The wire: real sockets on loopback, proxies, event loops, and what is left open."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from upcall import AsyncThingSpaceClient, NoAnswerError, RequestNotSentError, ThingSpaceClient
from upcall.client.async_driver import AsyncDriver
from upcall.errors import SettingsError
from upcall.settings import Credentials

ACCOUNT = "0000123456-00001"
CREDENTIALS = Credentials(client_id="i", client_secret="canary-secret", username="u", password="canary-password")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append(self.path)
        body = json.dumps(
            {"access_token": "canary-bearer", "sessionToken": "canary-session", "url": "https://h/x", "sandbox": True}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        # Without saying so: the client finds out when it uses the connection again.
        self.close_connection = self.server.hangs_up

    do_POST = do_GET  # noqa: N815 - http.server names it so

    def do_CONNECT(self):
        self.server.seen.append(self.path)
        self.send_error(403)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.daemon_threads = True
        running.seen, running.hangs_up = [], False
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def base_url(server):
    return f"http://127.0.0.1:{server.server_address[1]}/api"


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_loopback_ignores_proxy_variables(base_url, closed_port, monkeypatch):
    """A sandbox on this machine is reached directly, whatever proxy the shell has set."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    with ThingSpaceClient(base_url=base_url, credentials=CREDENTIALS) as client:
        assert client.callbacks.list_registered_callbacks(ACCOUNT).url == "https://h/x"


async def test_async_loopback_ignores_proxy_variables(base_url, closed_port, monkeypatch):
    """The async client reaches a sandbox directly too."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port}")
    async with AsyncThingSpaceClient(base_url=base_url, credentials=CREDENTIALS) as client:
        assert (await client.callbacks.list_registered_callbacks(ACCOUNT)).url == "https://h/x"


def test_the_provider_is_reached_through_the_proxy(server, base_url, monkeypatch):
    """Calls to the provider obey the proxy variables; a proxy that refuses means that nothing was sent."""
    monkeypatch.setenv("HTTPS_PROXY", base_url.removesuffix("/api"))
    with (
        ThingSpaceClient(base_url="https://thingspace.invalid/api", credentials=CREDENTIALS, max_retries=0) as client,
        pytest.raises(RequestNotSentError),
    ):
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert server.seen == ["thingspace.invalid:443"]


def test_a_proxy_variable_that_makes_no_sense_is_named_without_its_password(monkeypatch):
    """The error of a broken proxy variable says where to look and shows nothing of it."""
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://user:canary-password@proxy")
    with (
        ThingSpaceClient(base_url="https://thingspace.invalid/api", credentials=CREDENTIALS) as client,
        pytest.raises(SettingsError, match="HTTPS_PROXY") as caught,
    ):
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert "canary" not in str(caught.value)


def test_a_connection_that_the_server_closed_meanwhile_is_no_error(server, base_url):
    """A kept-alive connection that has ended is replaced behind the call."""
    server.hangs_up = True
    with ThingSpaceClient(base_url=base_url, credentials=CREDENTIALS) as client:
        client._driver.sleep = lambda _: None
        for _ in range(5):
            client.callbacks.list_registered_callbacks(ACCOUNT)


def test_nothing_listening_is_told_as_not_sent(closed_port):
    """A refused connection names its reason."""
    url = f"http://127.0.0.1:{closed_port}/api"
    with ThingSpaceClient(base_url=url, max_retries=0) as client, pytest.raises(RequestNotSentError, match="refused"):
        client.sandbox_banner()


def test_silence_ends_at_the_timeout():
    """A server that accepts and says nothing costs the timeout and no more."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        with (
            ThingSpaceClient(base_url=url, timeout_seconds=0.05, max_retries=0) as client,
            pytest.raises(NoAnswerError, match="took too long"),
        ):
            client.sandbox_banner()


def test_an_answer_in_drops_ends_at_the_timeout(make_client, provider, monkeypatch):
    """A body that trickles for ever is cut at the timeout, though each read is in time."""
    moments = iter(range(10_000))
    monkeypatch.setattr("upcall.client.wire.reading.time.monotonic", lambda: float(next(moments)))
    read = []

    def drip():
        while True:
            read.append(1)
            yield b" "

    provider.script.append(lambda _: httpx2.Response(200, content=drip()))
    client = make_client(max_retries=0, timeout_seconds=20.0)
    with pytest.raises(Exception, match="cut off"):
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert len(read) <= 21


def test_one_async_client_serves_loops_in_a_row_over_real_sockets(base_url):
    """Connections belong to a loop and end with it: nothing is left open, and the next loop has its own."""
    client = AsyncThingSpaceClient(base_url=base_url, credentials=CREDENTIALS)

    async def calls():
        return await asyncio.gather(*(client.callbacks.list_registered_callbacks(ACCOUNT) for _ in range(10)))

    for _ in range(2):
        assert len(asyncio.run(calls())) == 10
        gc.collect()
    assert client._driver._loops == {}


def test_one_async_client_serves_loops_at_the_same_time(base_url, server):
    """Two loops in two threads share the tokens of one client, and fetch each once."""
    client = AsyncThingSpaceClient(base_url=base_url, credentials=CREDENTIALS)
    gate = threading.Barrier(2)

    async def calls():
        gate.wait()
        await asyncio.gather(*(client.callbacks.list_registered_callbacks(ACCOUNT) for _ in range(10)))

    threads = [threading.Thread(target=lambda: asyncio.run(calls())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path for path in server.seen if "/fota/" not in path] == [
        "/api/ts/v1/oauth2/token",
        "/api/m2m/v1/session/login",
    ]


def test_a_closed_client_says_so(base_url):
    """A call after close is a mistake of the program and raises RuntimeError."""
    client = ThingSpaceClient(base_url=base_url, credentials=CREDENTIALS)
    client.sandbox_banner()
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.sandbox_banner()


async def test_a_closed_async_client_says_so_and_leaves_no_flight(base_url):
    """A call that cannot even begin its login does not leave others waiting for it."""
    client = AsyncThingSpaceClient(base_url=base_url, credentials=CREDENTIALS)
    await client.sandbox_banner()
    await client.aclose()
    await client.aclose()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            await client.callbacks.list_registered_callbacks(ACCOUNT)


def test_a_client_left_open_warns(base_url):
    """A client that was used and forgotten gives its connections back, and says so."""
    client = ThingSpaceClient(base_url=base_url, credentials=CREDENTIALS)
    client.sandbox_banner()
    del client
    with pytest.warns(ResourceWarning, match="ThingSpaceClient was not closed"):
        gc.collect()


async def test_an_async_client_left_open_warns(base_url):
    """So does the async twin, while its event loop goes on; its connections are closed by the loop."""
    client = AsyncThingSpaceClient(base_url=base_url, credentials=CREDENTIALS)
    await client.sandbox_banner()
    del client
    with pytest.warns(ResourceWarning, match="AsyncThingSpaceClient was not closed"):
        gc.collect()
    await asyncio.sleep(0)  # the loop closes what the client forgot


def test_a_client_that_was_never_used_may_be_forgotten(base_url):
    """Without a call there is nothing to close."""
    ThingSpaceClient(base_url=base_url, credentials=CREDENTIALS)
    gc.collect()


def test_a_given_http_client_is_used_and_not_closed(make_client, provider):
    """Your own httpx2 client carries the calls, follows no redirect here, and stays yours."""
    with httpx2.Client(transport=httpx2.MockTransport(provider), follow_redirects=True) as own:
        client = make_client(http_client=own)
        client.callbacks.list_registered_callbacks(ACCOUNT)
        provider.script.append((302, b"", {"Location": "https://elsewhere/"}))
        with pytest.raises(Exception, match="Redirects"):
            client.callbacks.list_registered_callbacks(ACCOUNT)
        client.close()
        assert not own.is_closed


async def test_a_given_async_http_client_is_used_and_not_closed(make_async_client, provider):
    """The async client takes one too."""
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(provider)) as own:
        client = make_async_client(http_client=own, transport=None)
        await client.callbacks.list_registered_callbacks(ACCOUNT)
        await client.aclose()
        assert not own.is_closed


async def test_an_asgi_application_can_stand_in_for_the_provider():
    """An ASGI transport serves, for tests without a socket."""

    async def application(scope, receive, send):
        body = b'{"access_token": "canary-bearer", "sessionToken": "canary-session", "url": "https://h/x"}'
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    transport = httpx2.ASGITransport(application)
    async with AsyncThingSpaceClient(
        base_url="http://localhost/api", credentials=CREDENTIALS, transport=transport
    ) as client:
        assert (await client.callbacks.list_registered_callbacks(ACCOUNT)).url == "https://h/x"


async def test_async_waits_retries_and_odd_answers(make_async_client, provider):
    """The async driver carries out every effect that the sync one does."""
    async with make_async_client() as client:
        provider.script.extend([503, httpx2.ReadTimeout("x"), (200, {"url": "https://h/x"})])
        assert (await client.callbacks.register_callback(ACCOUNT, {"url": "https://h/x"})).url == "https://h/x"
        assert len(client.waits) == 2
        assert (await client.callbacks.update_callback(ACCOUNT, {"url": "https://h/x"})).url
        provider.script.append((200, {"success": True}))
        assert (await client.callbacks.deregister_callback(ACCOUNT)).success
        provider.script.extend([(200, {"id": "c"})] * 3)
        assert await client.campaigns_v2.schedule_campaign_firmware_upgrade(ACCOUNT, {}) == {"id": "c"}
        assert await client.campaigns_v2.get_campaign_information(ACCOUNT, "c") == {"id": "c"}
        reports = client.software_management_reports_v2
        assert await reports.get_campaign_device_status(ACCOUNT, "c") == {"id": "c"}
        provider.script.extend([(200, {"id": "c"}), (200, [{"id": "c"}])])
        assert await reports.get_campaign_history_by_status(ACCOUNT, "CampaignEnded", "c") == {"id": "c"}
        assert await reports.get_device_firmware_upgrade_history(ACCOUNT, "9900") == [{"id": "c"}]
        await client.login()
        await client.logout()
        assert (provider.token_requests, provider.logins) == (1, 1)


async def test_a_flight_that_does_not_end_costs_one_budget():
    """A driver that waits for a flight stops at the flow's own timeout."""
    from concurrent.futures import Future

    from upcall.client.effects import Join

    outcome = await AsyncDriver(lambda: None)._perform(Join(Future(), 0.001))
    assert isinstance(outcome, TimeoutError)


def test_httpx2_loads_at_the_first_call():
    """Neither importing the client nor making one loads the HTTP library or a TLS context."""
    script = (
        "import sys, upcall; client = upcall.ThingSpaceClient(base_url='https://127.0.0.1:1/api');"
        "client.callbacks; print('httpx2' in sys.modules, 'typer' in sys.modules, 'uvicorn' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "False False False\n"


@pytest.mark.parametrize("page", [b"<html>", b'{"sandbox": "yes"}', b"[]", b""])
def test_only_a_sandbox_has_a_banner(page):
    """Whatever is no sandbox reads as None, and no credential is sent to find out."""
    seen = []

    def answer(request):
        seen.append(request)
        return httpx2.Response(200, content=page)

    with ThingSpaceClient(base_url="http://localhost/api", transport=httpx2.MockTransport(answer)) as client:
        assert client.sandbox_banner() is None
    assert str(seen[0].url) == "http://localhost/_sandbox/"
    assert "authorization" not in seen[0].headers


def test_the_banner_of_a_sandbox_is_returned(base_url):
    """A sandbox says that it is one."""
    with ThingSpaceClient(base_url=base_url) as client:
        assert client.sandbox_banner()["sandbox"] is True


def test_interrupting_a_login_leaves_the_next_one_free(make_client, provider):
    """After Ctrl-C in the middle of a login neither flight nor claim is left behind."""
    client = make_client()
    provider.login_script.append(lambda: None)
    original = provider._login

    def interrupt(request):
        provider._login = original
        provider.login_script.clear()
        raise KeyboardInterrupt

    provider._login = interrupt
    with contextlib.suppress(KeyboardInterrupt):
        client.login()
    client.login()
    assert (provider.logins, client.waits) == (1, [])
