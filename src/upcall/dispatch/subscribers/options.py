"""What the options of ``upcall listen`` and ``upcall work`` ask for, as handlers."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import re
import shlex
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from upcall.dispatch.handlers import Handler
from upcall.dispatch.schedule import RetrySchedule
from upcall.dispatch.subscribers.execute import Execute
from upcall.dispatch.subscribers.jsonl import JsonlFile
from upcall.errors import SettingsError
from upcall.redact import mask_token

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from upcall.dispatch.subscribers.signing import Signer

__all__ = ["subscribers_from_options"]

FORWARDS_IN_FLIGHT: Final = 64
COMMANDS_AT_ONCE: Final = 4
LINES_AT_ONCE: Final = 512

FORWARD_SCHEDULE: Final = RetrySchedule(max_attempts=80, backoff_seconds=1.0, max_backoff_seconds=3600.0)
"""Two days and more: a receiver gets repaired."""
COMMAND_SCHEDULE: Final = RetrySchedule()
FILE_SCHEDULE: Final = RetrySchedule(max_attempts=5000, backoff_seconds=1.0, max_backoff_seconds=60.0)
"""Two days and more: a disk gets emptied."""

_SECRET: Final = "UPCALL_FORWARD_SECRET"  # noqa: S105 - the variable's name
_TOKEN: Final = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[A-Za-z0-9_.~+=-]{16,}")
"""A part of a path that looks as if nobody were meant to guess it."""

_log = logging.getLogger("upcall.dispatch")


def subscribers_from_options(
    *,
    forward: Sequence[str] = (),
    forward_raw: Sequence[str] = (),
    execute: Sequence[str] = (),
    jsonl: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> list[Handler]:
    """Make a handler of each option; their names stay the same across restarts and hold no secret.

    Args:
        forward: URLs that each event is sent to as a CloudEvent.
        forward_raw: URLs that each body is sent to as it was received.
        execute: Commands to run for each event.
        jsonl: Files to append each event to.
        environ: Where ``UPCALL_FORWARD_SECRET`` or ``UPCALL_FORWARD_SECRET_FILE`` is looked for; None for this
            process's.

    Raises:
        SettingsError: A URL, a command, a file or the secret cannot be used, or one is given twice.
    """
    signer = _signer(os.environ if environ is None else environ) if forward or forward_raw else None
    handlers = [
        *(_forward(url, raw=False, signer=signer) for url in forward),
        *(_forward(url, raw=True, signer=signer) for url in forward_raw),
        *(_execute(command, environ) for command in execute),
        *(_jsonl(path) for path in jsonl),
    ]
    names = [handler.name for handler in handlers]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"{twice[0]} is given twice.", hint="Give each subscriber once.")
    if signer is None and (forward or forward_raw):
        _log.warning("forwards are not signed: set %s or %s_FILE to sign them", _SECRET, _SECRET)
    return handlers


def _signer(environ: Mapping[str, str]) -> Signer | None:
    from upcall.dispatch.subscribers.signing import Signer  # noqa: PLC0415 - for forwards only

    text, path = environ.get(_SECRET, ""), environ.get(f"{_SECRET}_FILE")
    place = _SECRET
    if not text and path:
        place = f"{_SECRET}_FILE"
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise SettingsError(
                f"{place} names {path}, which cannot be read.", hint="Correct the path or unset it."
            ) from None
        if not text.strip():
            raise SettingsError(f"{place} names {path}, which is empty.", hint="Write the secret there, or unset it.")
    return Signer.parse(text, place=place) if text.strip() else None


def _forward(url: str, *, raw: bool, signer: Signer | None) -> Handler:
    from upcall.dispatch.subscribers.forward import Forward  # noqa: PLC0415 - httptools is for forwards only

    option = "forward-raw" if raw else "forward"
    name = f"{option}:{_shown(_checked(url, option))}"
    sender = Forward(url, raw=raw, signer=signer)
    return Handler(
        name,
        sender,
        schedule=FORWARD_SCHEDULE,
        concurrency=FORWARDS_IN_FLIGHT,
        is_ours=True,
        aclose=sender.aclose,
        wants_guard=not raw,  # a receiver of the provider's own bodies would not know what it is
    )


def _execute(command: str, environ: Mapping[str, str] | None) -> Handler:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SettingsError(f"the command of --exec cannot be read: {error}.", hint="Close its quotes.") from None
    if not words or shutil.which(words[0]) is None:
        raise SettingsError(
            f"the command {words[0] if words else ''!r} of --exec is not one that can be run.",
            hint="Give the path of a program; a shell's words need: sh -c '…'.",
        )
    # Arguments may be secrets: the digest stands for them.
    name = f"exec:{words[0]}" + (f"#{_digest(command)}" if len(words) > 1 else "")
    return Handler(
        name,
        Execute(words, environ=environ),
        schedule=COMMAND_SCHEDULE,
        concurrency=COMMANDS_AT_ONCE,
        is_ours=True,
        wants_guard=True,
    )


def _jsonl(text: str) -> Handler:
    path = Path(text).absolute()
    if not path.parent.is_dir() or path.is_dir():
        raise SettingsError(f"--jsonl {text} cannot be written.", hint="Name a file in a directory that exists.")
    file = JsonlFile(path)
    return Handler(
        f"jsonl:{path}",
        file,
        schedule=FILE_SCHEDULE,
        concurrency=LINES_AT_ONCE,
        is_ours=True,
        aclose=file.aclose,
        wants_guard=True,
    )


def _checked(url: str, option: str) -> SplitResult:
    """Read a URL that may be forwarded to.

    Raises:
        SettingsError: It is none, or is not encrypted on its way out of this network.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, SplitResult("", "", "", "", "")
    if parts.scheme not in {"http", "https"} or not host or parts.fragment or re.search(r"[\s\x00-\x1f]", url):
        raise SettingsError(f"--{option} was given what is no http or https URL.", hint="Write https://host/path.")
    if parts.scheme == "http" and not _is_near(host):
        raise SettingsError(
            f"--{option} {_shown(parts)} would send callbacks through other networks unencrypted.",
            hint="Use https; http is for loopback and private addresses.",
        )
    if _is_odd(host):
        raise SettingsError(
            f"--{option} {_shown(parts)} is an address in an odd form, which is not sent to.",
            hint="Write four decimal numbers, or a name.",
        )
    return parts


def _is_near(host: str) -> bool:
    """Tell whether a host is here or in a network of one's own; of a name that does not resolve, later connects do."""
    from upcall.outbound import is_private  # noqa: PLC0415 - httptools is for forwards only

    try:
        return is_private(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return all(is_private(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])) for entry in found)
    except (OSError, UnicodeError):
        return True


def _is_odd(host: str) -> bool:
    """Tell whether a host is an address that sending refuses for its form: it would fail each time, for two days."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return isinstance(address, ipaddress.IPv6Address) and bool(address.ipv4_mapped or address.scope_id)
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False  # a name
    return True


def _shown(parts: SplitResult) -> str:
    """Return a URL without what may be secret in it; a digest of the whole stands for what is left out."""
    host = parts.netloc.rpartition("@")[2]
    path = _TOKEN.sub(lambda found: mask_token(found[0]), parts.path)
    shown = urlunsplit((parts.scheme, host, path, "", ""))
    whole = urlunsplit(parts)
    return shown if shown == whole else f"{shown}#{_digest(whole)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
