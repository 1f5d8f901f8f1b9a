"""Requests written byte by byte, and the answers as they come back."""

import contextlib
import socket
import ssl

from .conftest import TOKEN

PATIENCE_SECONDS = 100
PATH = f"/callbacks/{TOKEN}"


def post(body, *headers, path=PATH):
    """Return a request with a length."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(body, size, *headers, path=PATH):
    """Return a request whose body comes in chunks of one size."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers, "Transfer-Encoding: chunked", "", ""]
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return "\r\n".join(lines).encode() + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


class Connection:
    """Hold one connection to a listener.

    Args:
        port: The listener's port.
        tls: What TLS needs, None for plain.
    """

    def __init__(self, port, *, tls=None):
        plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket = tls.wrap_socket(plain, server_hostname="localhost") if tls else plain
        except (OSError, ssl.SSLError):
            plain.close()
            raise
        self._rest = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def answer(self):
        """Return the next answer's status, None where the connection ended in its place."""
        while b"\r\n\r\n" not in self._rest:
            if not self._read():
                return None
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        self.head = head
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        length = int(lengths[0]) if lengths else 0
        while len(self._rest) < length:
            assert self._read(), "an answer was cut"
        self.body, self._rest = self._rest[:length], self._rest[length:]
        return int(head.split(b" ")[1])

    def ask(self, data):
        """Send a request and return the status of its answer."""
        self.send(data)
        return self.answer()

    def answers(self):
        """Return the statuses that still come, until the connection ends."""
        return list(iter(self.answer, None))

    def is_ended(self):
        """Wait until the other end has closed the connection; tell whether nothing came before that."""
        return not self._rest and not self._read()

    def _read(self):
        try:
            chunk = self.socket.recv(65536)
        except (ConnectionError, ssl.SSLError):
            return False
        self._rest += chunk
        return bool(chunk)


def talk(port, parts):
    """Send parts on one connection, end it, and return the statuses that come back."""
    with Connection(port) as connection:
        for part in parts:
            connection.send(part)
        with contextlib.suppress(OSError):  # it may have ended already
            connection.socket.shutdown(socket.SHUT_WR)
        return connection.answers()


def memory(listener, what="VmHWM"):
    """Return how many MiB a process takes, or took at its most."""
    with open(f"/proc/{listener.process.pid}/status") as lines:  # noqa: PTH123 - no file on a disk
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024
