"""One client in a process of its own: make it, call for a while, print what came of it as one JSON object.

``python client_worker.py first|sync upcall|sdk URL SECONDS`` or ``... async|profile upcall URL SECONDS IN_FLIGHT``,
where a profile of 0 in flight is one of the sync client. `client.py` starts it, in an environment that holds one of the
two clients and nothing else. Everything is imported where it is used: the time to the first answer counts from here.
"""

import sys
import time

BEGAN = time.perf_counter()

ACCOUNT = "0000123456-00001"
REGISTERED = "https://host.example/listener"
WARM_UP_SECONDS = 0.25
HEAVIEST = 12
LIBRARIES = ("upcall", "httpcore2", "h11", "anyio", "asyncio", "ssl", "socket/syscalls", "other")
"""Named in a profile even where they take nothing; what else is installed is named where it takes something."""


def upcall_call(url):
    """Return a call of Upcall's client, which fetches its token and logs in at the first."""
    from upcall import Credentials, ThingSpaceClient

    client = ThingSpaceClient(
        base_url=url,
        credentials=Credentials(client_id="id", client_secret="secret", username="user", password="password"),
    )
    return lambda: client.callbacks.list_registered_callbacks(ACCOUNT).url


def sdk_call(url):
    """Return a call of the SDK's client: it fetches its token itself, and its user logs in and hands on both tokens."""
    from verizon.configuration import Configuration, Environment, Server
    from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
    from verizon.http.auth.vz_m2m_token import VZM2mTokenCredentials
    from verizon.models.log_in_request import LogInRequest
    from verizon.verizon_client import VerizonClient

    Configuration.environments[Environment.PRODUCTION] |= {
        Server.THINGSPACE: url,
        Server.OAUTH_SERVER: f"{url}/ts/v1",
        Server.M2M: f"{url}/m2m",
        Server.SOFTWARE_MANAGEMENT_V2: f"{url}/fota/v2",
    }
    tokens = []
    oauth = ThingspaceOauthCredentials(
        oauth_client_id="id", oauth_client_secret="secret", oauth_on_token_update=tokens.append
    )
    body = LogInRequest(username="user", password="password")
    sessions = VerizonClient(thingspace_oauth_credentials=oauth).session_management
    session = sessions.start_connectivity_management_session(body).body.session_token
    client = VerizonClient(
        thingspace_oauth_credentials=oauth.clone_with(oauth_token=tokens[-1]),
        vz_m2m_token_credentials=VZM2mTokenCredentials(vz_m2m_token=session),
    )
    return lambda: client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT).body.url


CALLS = {"upcall": upcall_call, "sdk": sdk_call}


class Meter:
    """Take the time and the processor time of this process between `start` and `stop`.

    Args:
        profiler: What to switch on meanwhile.
    """

    def __init__(self, profiler=None):
        self.profiler = profiler

    def start(self, calls):
        self.calls, self.cpu, self.began = calls, _cpu_seconds(), time.perf_counter()
        if self.profiler is not None:
            self.profiler.enable()

    def stop(self, calls):
        if self.profiler is not None:
            self.profiler.disable()
        elapsed, busy, done = time.perf_counter() - self.began, _cpu_seconds() - self.cpu, calls - self.calls
        self.measured = done
        return {"per_second": done / elapsed, "cpu_us": 1e6 * busy / done}


def first(call):
    """Call once; what came before it counts from the first statement of this file."""
    _check(call())
    elapsed = time.perf_counter() - BEGAN
    return {"first_ms": 1000 * elapsed, "peak_mib": _peak_kib() / 1024, "calls": 1}


def sync(call, seconds, meter):
    """Call one at a time, and again as soon as the answer is there."""
    calls = _call_for(call, WARM_UP_SECONDS)
    meter.start(calls)
    calls += _call_for(call, seconds)
    return meter.stop(calls) | {"calls": calls}


async def concurrent(url, seconds, in_flight, meter):
    """Keep so many calls of Upcall's client in flight."""
    import asyncio

    from upcall import AsyncThingSpaceClient, Credentials

    calls, stopping = 0, False

    async def call_on():
        nonlocal calls
        while not stopping:
            _check((await client.callbacks.list_registered_callbacks(ACCOUNT)).url)
            calls += 1

    credentials = Credentials(client_id="id", client_secret="secret", username="user", password="password")
    async with AsyncThingSpaceClient(base_url=url, credentials=credentials) as client, asyncio.TaskGroup() as tasks:
        for _ in range(in_flight):
            tasks.create_task(call_on())
        await asyncio.sleep(WARM_UP_SECONDS)
        meter.start(calls)
        await asyncio.sleep(seconds)
        measured = meter.stop(calls)
        stopping = True
    return measured | {"calls": calls}


def profile(url, seconds, in_flight):
    """Say where the processor time of a call goes, by library and by function."""
    import asyncio
    import cProfile

    # The profiler's own clock counts waiting as work; this one counts what the thread did.
    profiler = cProfile.Profile(time.thread_time)
    meter = Meter(profiler)
    if in_flight:
        measured = asyncio.run(concurrent(url, seconds, in_flight, meter))
    else:
        measured = sync(upcall_call(url), seconds, meter)
    profiler.create_stats()
    return measured | _breakdown(profiler.stats, meter.measured)


def _breakdown(stats, calls):
    groups, functions = dict.fromkeys(LIBRARIES, 0.0), []
    for function, (_, entries, own_seconds, _, callers) in stats.items():
        library = _library(function)
        # What is built in works for its caller: `dict.get` in h11 is h11's.
        shares = [(library, own_seconds)]
        if library is None:
            shares = [(_library(caller) or "other", share[2]) for caller, share in callers.items()]
        shares = [(name, share) for name, share in shares if name != "benchmark"]
        for name, share in shares:
            groups[name] = groups.get(name, 0.0) + share
        if shares:
            functions.append((sum(share for _, share in shares), entries, function))
    total = sum(groups.values())
    heaviest = sorted(functions, reverse=True)[:HEAVIEST]
    return {
        "groups": {name: own / total for name, own in sorted(groups.items(), key=lambda item: -item[1])},
        "heaviest": [
            {"function": _name(function), "share": own / total, "entered_per_call": entries / calls}
            for own, entries, function in heaviest
        ],
    }


def _library(function):
    """Name the library a function belongs to: None where its caller's counts, "benchmark" for what is not measured."""
    from pathlib import Path

    path, _, name = function
    if path == "~":
        return _library_of_built_in(name)
    if path == __file__:
        return "benchmark"
    parts = Path(path).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    if "asyncio" in parts:
        return "asyncio"
    places = {"ssl.py": "ssl", "socket.py": "socket/syscalls", "selectors.py": "socket/syscalls"}
    return places.get(parts[-1], "other")


def _library_of_built_in(name):
    if "_lsprof" in name:
        return "benchmark"
    marks = {"_ssl.": "ssl", "_asyncio.": "asyncio", "_socket.": "socket/syscalls", "select.": "socket/syscalls"}
    marks["posix."] = "socket/syscalls"
    return next((library for mark, library in marks.items() if mark in name), None)


def _name(function):
    from pathlib import Path

    path, line, name = function
    return name.strip("<>") if path == "~" else f"{'/'.join(Path(path).parts[-2:])}:{line} {name}"


def _call_for(call, seconds):
    calls, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        _check(call())
        calls += 1
    return calls


def _check(url):
    if url != REGISTERED:
        raise SystemExit(f"the client understood {url!r}")


def _cpu_seconds():
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_kib():
    import resource

    try:
        # getrusage's figure is never less than what the parent had when it started this process.
        with open("/proc/self/status") as status:  # noqa: PTH123 - pathlib would be measured too
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1024 if sys.platform == "darwin" else peak


def main():
    mode, peer, url, seconds, *rest = sys.argv[1:]
    in_flight = int(rest[0]) if rest else 0
    if mode == "first":
        result = first(CALLS[peer](url))
    elif mode == "sync":
        result = sync(CALLS[peer](url), float(seconds), Meter())
    elif mode == "async":
        import asyncio

        result = asyncio.run(concurrent(url, float(seconds), in_flight, Meter()))
    else:
        result = profile(url, float(seconds), in_flight)
    import json

    print(json.dumps(result))


if __name__ == "__main__":
    main()
