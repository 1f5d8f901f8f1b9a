"""What `deploy/` ships, tried on the real programs: nginx, systemd, promtool, and a real listener behind them."""

import asyncio
import contextlib
import hashlib
import http.client
import itertools
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import trustme

from upcall.inbox import open_inbox
from upcall.listener.admin import Admin
from upcall.listener.stats import ListenerState, ListenerStats
from upcall.registration.figures import GuardFigures, families

ROOT = Path(__file__).parents[2]
SITE = ROOT / "deploy/nginx/upcall.conf"
RULES = ROOT / "deploy/prometheus/upcall.rules.yml"
UNITS = ROOT / "deploy/systemd"
SERVICES = ("upcall-listen.service", "upcall-work.service", "upcall-guard.service", "upcall-prune.service")
TOKEN = "acceptance-canary-token"
HOST = "callbacks.example.com"
CLIENT = "127.0.0.2"
"""Another address than nginx's own, so that the two cannot be mixed up."""

# nginx is asked to run in one directory and as whoever runs the tests; everything else is the shipped file's.
MAIN = """
{user}
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/main.error.log info;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/upcall.conf;
}}
"""


def program(name, package):
    """Return where a program of Debian's lies."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install {package}")
    return found


def free_ports(count):
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in held]


class Nginx:
    """Run nginx with the shipped site, its names and ports made those of a test.

    Args:
        directory: Where it may write.
        listeners: The listeners' ports.
    """

    def __init__(self, directory, listeners):
        directory.mkdir()
        self.directory = directory
        authority = trustme.CA()
        certificate = authority.issue_cert(HOST)
        certificate.private_key_and_cert_chain_pem.write_to_path(directory / "chain.pem")
        self.tls = ssl.create_default_context()
        authority.configure_trust(self.tls)
        (self.port,) = free_ports(1)
        (directory / "upcall.conf").write_text(self._site(listeners))
        user = "user root;" if os.geteuid() == 0 else ""
        (directory / "nginx.conf").write_text(MAIN.format(directory=directory, user=user))
        self.process = subprocess.Popen(
            [program("nginx", "nginx"), "-p", directory, "-c", directory / "nginx.conf"],
            stderr=subprocess.DEVNULL,
            cwd=directory,
        )
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self.process.poll() is None, self.logs()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.01)

    def _site(self, listeners):
        text = SITE.read_text()
        upstreams = "\n".join(f"server 127.0.0.1:{port} max_fails=0;" for port in listeners)
        for shipped, ours in (
            ("    listen 443 ssl;", f"    listen 127.0.0.1:{self.port} ssl;"),
            ("    listen [::]:443 ssl;", ""),
            ("/etc/ssl/upcall/fullchain.pem", f"{self.directory}/chain.pem"),
            ("/etc/ssl/upcall/key.pem", f"{self.directory}/chain.pem"),
            ("/var/log/nginx/upcall.access.log", f"{self.directory}/access.log"),
            ("/var/log/nginx/upcall.error.log", f"{self.directory}/error.log"),
            ("    server 127.0.0.1:8080 max_fails=0;", upstreams),
        ):
            assert text.count(shipped) == 1, shipped
            text = text.replace(shipped, ours)
        return text

    def _answers(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def ask(self, method, path, body=b"", **headers):
        """Send one request over TLS from `CLIENT`, and return the status."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=100, source_address=(CLIENT, 0))
        connection = http.client.HTTPConnection(HOST)
        connection.sock = self.tls.wrap_socket(plain, server_hostname=HOST)
        with contextlib.closing(connection):
            connection.request(method, path, body=body or None, headers=headers)
            return connection.getresponse().status

    def post(self, body, **headers):
        return self.ask("POST", f"/callbacks/{TOKEN}", body, **headers)

    def logs(self):
        """Return everything that nginx wrote down, whatever file it stands in."""
        return "\n".join(path.read_text() for path in sorted(self.directory.glob("*.log")))

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def behind_nginx(upcall, tmp_path):
    """Start listeners behind one nginx and return it; with `listeners`, on ports of theirs."""
    running = []

    def start(*, listeners=1):
        ports = free_ports(listeners)
        for port in ports:
            upcall.listen("--trusted-proxy", "127.0.0.1/32", port=port)
        running.append(Nginx(tmp_path / "nginx", ports))
        return running[-1]

    yield start
    for nginx in running:
        nginx.close()


def stored(upcall):
    with open_inbox(upcall.store) as inbox:
        return [(record.body, inbox.deliveries(record.id)) for record in inbox.callbacks()]


def test_a_callback_passes_with_its_source(upcall, behind_nginx):
    """A callback through the proxy is stored byte for byte, under the sender's address and not the proxy's."""
    nginx = behind_nginx()
    body = b'{"campaignId": "c-1", "status": "\xc3\xa9"}  '
    assert nginx.post(body) == 200
    ((kept, (delivery,)),) = stored(upcall)
    assert kept == body
    assert (delivery.peer, delivery.source) == ("127.0.0.1", CLIENT)


def test_what_a_sender_says_about_itself_is_not_believed(upcall, behind_nginx):
    """No header that a client sends makes it anybody else, however it is written."""
    nginx = behind_nginx()
    claims = {
        "X-Forwarded-For": "54.200.43.232, 127.0.0.1",
        "x-forwarded-for ": "54.200.43.232",
        "X-Real-IP": "54.200.43.232",
        "Forwarded": "for=54.200.43.232",
        "X_Forwarded_For": "54.200.43.232",
    }
    for number, (name, value) in enumerate(claims.items()):
        with contextlib.suppress(http.client.HTTPException, ValueError):  # not everything may be sent at all
            nginx.post(b'{"number": %d}' % number, **{name: value})
    deliveries = [delivery for _, all_of_it in stored(upcall) for delivery in all_of_it]
    assert len(deliveries) >= 4
    assert {delivery.source for delivery in deliveries} == {CLIENT}
    assert not any(delivery.listed for delivery in deliveries)


def test_no_log_of_nginx_has_the_token(upcall, behind_nginx):
    """Whatever becomes of a request, its token and its query stand in no file that nginx writes."""
    nginx = behind_nginx()
    assert nginx.post(b"{}") == 200
    assert nginx.ask("POST", f"/%63allbacks//{TOKEN}?key={TOKEN}", b"{}") == 404
    assert nginx.post(b"x" * (9 << 20)) == 413
    assert nginx.ask("DELETE", f"/callbacks/{TOKEN}") == 405
    assert nginx.ask("GET", f"/elsewhere/{TOKEN}", Referer=f"https://{HOST}/callbacks/{TOKEN}") == 404
    upcall.servers[-1].end()
    assert nginx.post(b"{}") == 502
    access = nginx.directory / "access.log"
    upcall.until(lambda: len(access.read_text().splitlines()) == 6)
    nginx.close()
    assert "canary" not in nginx.logs()
    lines = [json.loads(line) for line in access.read_text().splitlines()]
    # In no certain order: what was refused before it was whole is logged once its sender is gone.
    assert sorted(line["status"] for line in lines) == [200, 404, 404, 405, 413, 502]
    assert {line["path"] for line in lines if line["status"] == 200} == {"/callbacks/***"}


def test_the_largest_callback_passes(upcall, behind_nginx):
    """The proxy's cap is the listener's: 8 MiB pass, one byte more gets 413, sent in one piece or in chunks."""
    nginx = behind_nginx()
    largest = b'"' + b"x" * (8 * 1024 * 1024 - 2) + b'"'
    assert nginx.post(largest) == 200
    assert nginx.post(largest + b" ") == 413
    assert nginx.post(iter([largest, b" "])) == 413  # without a length, and so in chunks
    assert nginx.post(iter([largest[:9], b"y", largest[10:]])) == 200
    digests = [hashlib.sha256(body).hexdigest() for body, _ in stored(upcall)]  # so that a failure can be printed
    assert digests == [hashlib.sha256(body).hexdigest() for body in (largest, largest[:9] + b"y" + largest[10:])]


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("PUT", 405), ("OPTIONS", 405)])
def test_methods(behind_nginx, method, status):
    """A live URL answers GET and HEAD, which monitors send, and no method but those and POST gets through."""
    assert behind_nginx().ask(method, f"/callbacks/{TOKEN}") == status


def test_a_connection_that_the_listener_closed_costs_no_callback(upcall, behind_nginx):
    """After a restart nginx still holds connections to the old listener; callbacks go through all the same."""
    nginx = behind_nginx()
    assert nginx.post(b'{"number": 0}') == 200
    old = upcall.servers[-1]
    old.kill()  # so that nobody says goodbye
    upcall.listen("--trusted-proxy", "127.0.0.1/32", port=old.port)
    assert [nginx.post(b'{"number": %d}' % number) for number in range(1, 4)] == [200] * 3
    assert len(stored(upcall)) == 4


class Upstream:
    """Stand for a listener that dies on its first connection's second request: closed, without an answer."""

    def __init__(self):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.bodies = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        for most in (1, 2):
            try:
                connection, _ = self.listening.accept()
            except OSError:  # closed
                return
            with connection, connection.makefile("rb") as reader:
                for _ in range(most):
                    self._answer(connection, reader)
                self._read(reader)

    def _answer(self, connection, reader):
        self.bodies.append(self._read(reader))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def _read(self, reader):
        length = 0
        while (line := reader.readline()) not in {b"\r\n", b""}:
            if line.lower().startswith(b"content-length"):
                length = int(line.split(b":")[1])
        return reader.read(length)

    def close(self):
        with contextlib.suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self._thread.join(20)


def test_a_connection_that_breaks_is_tried_again(tmp_path):
    """A kept-alive connection that the listener closes as a callback comes through it costs no callback."""
    with contextlib.closing(Upstream()) as upstream:
        with contextlib.closing(Nginx(tmp_path / "nginx", [upstream.port])) as nginx:
            assert [nginx.post(body) for body in (b"1", b"2", b"3")] == [200] * 3
        assert upstream.bodies == [b"1", b"2", b"3"]


async def flood(nginx, *, meanwhile):
    """Send callbacks, eight at a time, until something is done; return their numbers by the status of the answer."""
    answers = {}
    numbers = itertools.count()
    over = threading.Event()

    def work():
        while not over.is_set():
            number = next(numbers)
            try:
                status = nginx.post(b'{"number": %d}' % number)
            except OSError:
                status = 0
            answers.setdefault(status, set()).add(number)

    workers = [asyncio.create_task(asyncio.to_thread(work)) for _ in range(8)]
    try:
        await asyncio.to_thread(meanwhile)
    finally:
        over.set()
        await asyncio.gather(*workers)
    return answers


async def test_a_restart_loses_nothing_acknowledged(upcall, behind_nginx):
    """While the listener behind nginx is restarted, callbacks are refused for a moment, and none that was
    acknowledged is missing.
    """
    nginx = behind_nginx()

    def restart():
        old = upcall.servers[-1]
        assert old.end() == 0
        upcall.listen("--trusted-proxy", "127.0.0.1/32", port=old.port)

    answers = await flood(nginx, meanwhile=restart)
    assert 200 in answers
    assert set(answers) <= {200, 502}
    kept = {json.loads(body)["number"] for body, _ in stored(upcall)}
    assert answers[200] <= kept
    assert nginx.post(b'{"number": -1}') == 200


async def test_two_listeners_on_one_store_refuse_nothing(upcall, behind_nginx):
    """With two listeners behind nginx each can be restarted in turn, and every callback is acknowledged and kept."""
    nginx = behind_nginx(listeners=2)

    def restart_each():
        for old in list(upcall.servers):
            assert old.end() == 0
            upcall.listen("--trusted-proxy", "127.0.0.1/32", port=old.port)

    answers = await flood(nginx, meanwhile=restart_each)
    assert set(answers) == {200}
    assert {json.loads(body)["number"] for body, _ in stored(upcall)} == answers[200]


@pytest.mark.parametrize("unit", SERVICES)
def test_systemd_understands_the_units(unit, tmp_path):
    """Systemd has no complaint about a unit, once its program is there."""
    text = (UNITS / unit).read_text()
    assert text.count("/opt/upcall/bin/upcall ") == 1
    (tmp_path / unit).write_text(text.replace("/opt/upcall/bin/upcall ", f"{sys.executable} "))
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd on this machine")
    ended = subprocess.run([analyze, "verify", tmp_path / unit], capture_output=True, text=True, check=False)
    ours = [line for line in ended.stderr.splitlines() if unit in line]
    assert (ended.returncode, ours) == (0, [])


@pytest.mark.parametrize("unit", SERVICES)
def test_the_units_run_commands_that_there_are(upcall, unit):
    """What a unit starts is a command of Upcall's with options that it has."""
    line = next(line for line in (UNITS / unit).read_text().splitlines() if line.startswith("ExecStart="))
    words = line.removeprefix("ExecStart=").split()[1:]
    command = [word for word in words[:2] if word.isalpha()]
    offered = upcall.run(*command, "--help", COLUMNS="200")
    assert offered.returncode == 0
    for word in words:
        assert not word.startswith("--") or word in offered.stdout, word


def test_promtool_understands_the_rules():
    """Prometheus' own checker has no complaint about the alerts."""
    ended = subprocess.run(
        [program("promtool", "prometheus"), "check", "rules", RULES], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_alerts_fire():
    """Each kind of alert is raised by the figures that it is for, and by nothing quieter."""
    ended = subprocess.run(
        [program("promtool", "prometheus"), "test", "rules", Path(__file__).with_name("upcall.rules.test.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


async def test_every_figure_in_an_alert_exists(tmp_path):
    """An alert on a figure that nobody exposes would never fire."""
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as inbox:
        inbox.subscribe(["handler"], 1)
    stats = ListenerStats(last_received_at=1)
    guard = GuardFigures()
    place = str(tmp_path / "inbox.db")
    admin = Admin(stats, lambda: open_inbox(place), state=ListenerState, more=lambda: families(guard))
    _, _, body = await admin.respond("GET", "/metrics")
    shown = set(re.findall(r"^(upcall_\w+)", body.decode(), re.MULTILINE))
    reasons = set(re.findall(r'reason="(\w+)"', body.decode()))
    expressions = re.findall(r"^ +expr: (.+)$", RULES.read_text(), re.MULTILINE)
    assert len(expressions) == RULES.read_text().count("- alert:")
    for expression in expressions:
        assert set(re.findall(r"upcall_\w+", expression)) <= shown, expression
    alerted = re.findall(r'reason=~?"([\w|]+)"', " ".join(expressions))
    assert {reason for named in alerted for reason in named.split("|")} == reasons, "each reason has its alert"


def anchors(path):
    """Return a document's headings as links name them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_alert_has_a_runbook():
    """Each alert points at a heading that is there."""
    text = RULES.read_text()
    runbooks = re.findall(r"^ +runbook: (\S+)#(\S+)$", text, re.MULTILINE)
    assert len(runbooks) == text.count("- alert:")
    for document, heading in runbooks:
        assert heading in anchors(ROOT / document), heading


def test_the_admin_port_of_a_real_listener(upcall):
    """A monitor finds health, readiness and figures on the admin port, and a callback counts there."""
    (admin,) = free_ports(1)
    listener = upcall.listen("--admin", f"127.0.0.1:{admin}")

    def get(path, port=admin):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=100) as answer:
            return answer.read().decode()

    request = urllib.request.Request(listener.url, data=b'{"campaignId": "c-1"}', method="POST")
    with urllib.request.urlopen(request, timeout=100) as answer:
        assert answer.status == 200
    assert get("/healthz") == "ok\n"
    assert json.loads(get("/readyz"))["ready"] is True
    figures = get("/metrics")
    assert "\nupcall_acknowledged_total 1.0\n" in figures
    assert "\nupcall_store_up 1.0\n" in figures
    assert TOKEN not in figures
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get("/metrics", listener.port)
