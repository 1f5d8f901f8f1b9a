"""Measure how long `upcall plan` reads a fleet, beside a loop with the official SDK, one account after the other.

    uv run --all-extras --group bench benchmarks/plan.py

One sandbox on loopback, 500 accounts that two sets of credentials call for in turn. `upcall plan` reads them as the
command does: a client a set, eight calls at once, one progress bar. The loop is what one writes without it: a client of
the SDK a set, each logged in before, and one call after the other. Both also through a relay that holds every answer
back, because a provider is never as near as loopback. Rounds take turns; the sandbox's own log tells how many logins
each took.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from receive import machine, own_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETS = ("east", "west")
NAMES = ("client_id", "client_secret", "username", "password")
URL = "https://fleet.example.com:50559/callbacks/a"


def fleet(count: int) -> list[tuple[str, str]]:
    """Return so many accounts, each with the set of credentials that calls for it."""
    return [(f"0000123456-{number:05}", SETS[number % len(SETS)]) for number in range(count)]


def write_settings(path: Path, accounts: list[tuple[str, str]]) -> None:
    """Write the settings file that names them."""
    tables = [f'[[accounts]]\nname = "{name}"\nurl = "{URL}"\ncredentials = "{which}"\n' for name, which in accounts]
    for which in SETS:
        references = "".join(f'{name}_env = "BENCH_{which.upper()}_{name.upper()}"\n' for name in NAMES)
        tables.append(f"[credentials.{which}]\n{references}")
    path.write_text("\n".join(tables))


@contextlib.contextmanager
def sandbox(log: Path) -> Iterator[str]:
    """Run a sandbox in a process of its own, and give its base URL."""
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "upcall", "sandbox", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=own_environment(),
            cwd=log.parent,
        ) as process,
    ):
        yield process.stdout.readline().split()[1]
        process.terminate()


# --- The relay -------------------------------------------------------------------------------------------------------


async def serve_relay(port: int, delay_seconds: float) -> None:
    """Pass bytes on to a port of this machine, and every answer back so much later."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        while data := await reader.read(65536):
            if delay:
                await asyncio.sleep(delay)
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pass_on(reader, back, 0.0), pass_on(there, writer, delay_seconds))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def relay(base_url: str, delay_ms: float) -> Iterator[str]:
    """Give a base URL that answers later; without a delay the sandbox's own."""
    if not delay_ms:
        yield base_url
        return
    command = [sys.executable, __file__, "--relay", str(urlsplit(base_url).port), str(delay_ms / 1000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/api"
        process.terminate()


# --- The two ---------------------------------------------------------------------------------------------------------


def read_by_upcall(settings_file: Path, base_url: str, accounts: list[tuple[str, str]]) -> int:
    """Read every account as `upcall plan` does; return how many were read."""
    from upcall.cli.desired import open_wanted, read_standing

    os.environ["THINGSPACE_BASE_URL"] = base_url
    with open_wanted(str(settings_file), None) as wanted, wanted.book(max_concurrency=8) as book:
        standing, errors = read_standing(book, wanted.accounts)
    assert not errors, errors
    assert len(standing) == len(accounts)
    return len(standing)


def read_by_sdk(base_url: str, accounts: list[tuple[str, str]]) -> int:
    """Read every account with the official SDK, one after the other; return how many were read."""
    from verizon.configuration import Configuration, Environment, Server
    from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
    from verizon.http.auth.vz_m2m_token import VZM2mTokenCredentials
    from verizon.models.log_in_request import LogInRequest
    from verizon.verizon_client import VerizonClient

    Configuration.environments[Environment.PRODUCTION] = dict(Configuration.environments[Environment.PRODUCTION]) | {
        Server.THINGSPACE: base_url,
        Server.OAUTH_SERVER: f"{base_url}/ts/v1",
        Server.M2M: f"{base_url}/m2m",
        Server.SOFTWARE_MANAGEMENT_V2: f"{base_url}/fota/v2",
    }

    def client(session: str) -> VerizonClient:
        return VerizonClient(
            thingspace_oauth_credentials=ThingspaceOauthCredentials(
                oauth_client_id="sandbox", oauth_client_secret="sandbox"
            ),
            vz_m2m_token_credentials=VZM2mTokenCredentials(vz_m2m_token=session),
        )

    def logged_in() -> VerizonClient:
        body = LogInRequest(username="sandbox", password="sandbox")
        answer = client("none yet").session_management.start_connectivity_management_session(body)
        return client(answer.body.session_token)

    clients = {which: logged_in() for which in SETS}
    for account, which in accounts:
        answer = clients[which].software_management_callbacks_v2.list_registered_callbacks(account)
        assert answer.status_code == 200
    return len(accounts)


def measure(read: Callable[[], int], log: Path) -> tuple[float, int]:
    """Return the seconds that a reading took, and how many logins the sandbox saw meanwhile."""
    before = log.read_text().count("/session/login")
    began = time.perf_counter()
    read()
    took = time.perf_counter() - began
    return took, log.read_text().count("/session/login") - before


def report(options: argparse.Namespace) -> None:
    accounts = fleet(options.accounts)
    for which in SETS:
        os.environ |= {f"BENCH_{which.upper()}_{name.upper()}": "sandbox" for name in NAMES}
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        os.environ["UPCALL_STATE_DIR"] = str(place / "state")
        write_settings(place / "upcall.toml", accounts)
        log = place / "sandbox.log"
        with sandbox(log) as base_url:
            for delay in options.delays:
                with relay(base_url, delay) as url:
                    cases = {
                        "upcall": lambda url=url: read_by_upcall(place / "upcall.toml", url, accounts),
                        "sdk": lambda url=url: read_by_sdk(url, accounts),
                    }
                    for read in cases.values():
                        read()  # what each loads and opens first is not a matter of accounts
                    taken = {case: [] for case in cases}
                    for number in range(options.rounds):
                        for case, read in cases.items():
                            print(f"{delay:g} ms, round {number + 1}: {case}", file=sys.stderr)
                            taken[case].append(measure(read, log))
                rows.append(row(delay, taken))
    document = {"machine": machine(), "accounts": options.accounts, "sets": len(SETS), "rows": rows}
    print(json.dumps(document) if options.json else table(document))


def row(delay: float, taken: dict[str, list[tuple[float, int]]]) -> dict[str, object]:
    """Return medians, their ratio, and the logins of one round."""
    seconds = {case: statistics.median(one for one, _ in rounds) for case, rounds in taken.items()}
    logins = {case: max(count for _, count in rounds) for case, rounds in taken.items()}
    return {"delay_ms": delay, "seconds": seconds, "ratio": seconds["sdk"] / seconds["upcall"], "logins": logins}


def table(document: dict[str, object]) -> str:
    lines = [
        "| answers held back | `upcall plan` s | SDK in a loop s | ratio | logins: plan, SDK |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['delay_ms']:g} ms | {one['seconds']['upcall']:.2f} | {one['seconds']['sdk']:.2f}"
        f" | {one['ratio']:.1f} | {one['logins']['upcall']}, {one['logins']['sdk']} |"
        for one in document["rows"]
    ]
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:2] == ["--relay"]:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve_relay(int(sys.argv[2]), float(sys.argv[3])))
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--accounts", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 50.0], help="milliseconds")
    parser.add_argument("--json", action="store_true")
    report(parser.parse_args())


if __name__ == "__main__":
    main()
