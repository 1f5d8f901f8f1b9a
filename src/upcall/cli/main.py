"""The command tree, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from upcall.cli import (
    apply,
    callbacks,
    campaigns,
    dead,
    demo,
    doctor,
    events,
    guard,
    listen,
    login,
    outages,
    plan,
    prove,
    quarantine,
    reconcile,
    rotate,
    sandbox,
    simulate,
    store,
    work,
)
from upcall.cli.logs import configure_logging
from upcall.errors import UpcallError
from upcall.version import __version__

__all__ = ["app", "run"]

EXIT_USAGE = 2
EXIT_NOT_STARTED = 3
EXIT_INTERRUPTED = 130

app: typer.Typer = typer.Typer(
    name="upcall",
    help="Receive what ThingSpace's software-management campaigns report, and lose nothing.",
    epilog="Start with: upcall demo. Exit codes: 0 done, 1 the answer is no, 2 usage, 3 could not start,"
    " 4 the provider refused or did not answer, 130 interrupted.",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


def _version(show: bool) -> None:
    if show:
        sys.stdout.write(f"upcall {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Receive what ThingSpace's software-management campaigns report, and lose nothing."""


app.command("demo")(demo.demo)
app.command("sandbox")(sandbox.sandbox)
app.command("simulate")(simulate.simulate)
app.add_typer(callbacks.app, name="callbacks")
app.command("login")(login.login)
app.command("whoami")(login.whoami)
app.command("plan", epilog="Such as: upcall plan --config fleet.toml --json")(plan.plan)
app.command("apply", epilog="Such as: upcall apply --config fleet.toml --label east --yes")(apply.apply)
app.command("guard", epilog="Such as: upcall guard --config fleet.toml --reassert")(guard.guard)
app.command("doctor", epilog="Such as: upcall doctor --config fleet.toml --strict")(doctor.doctor)
app.command("listen")(listen.listen)
app.command("work")(work.work)
app.add_typer(events.app, name="events")
app.add_typer(campaigns.app, name="campaigns")
app.add_typer(dead.app, name="dead")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(store.app, name="store")
app.command("rotate")(rotate.rotate)
app.command("outages")(outages.outages)
app.command("reconcile", epilog="Such as: upcall reconcile --since 2h --account 0000123456-00001 --dry-run")(
    reconcile.reconcile
)
app.command("prove")(prove.prove)


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; an error becomes one line.

    Args:
        arguments: The words after ``upcall``; None takes the process's own.
    """
    try:
        configure_logging()
        result = app(arguments, prog_name="upcall", standalone_mode=False)
    except typer.Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except SystemExit as ended:
        # The command library ends the process itself where the reader of a pipe has gone: it has seen enough.
        return 0 if isinstance(ended.__context__, BrokenPipeError) else int(ended.code or 0)
    except Exception as error:
        if os.environ.get("UPCALL_TRACEBACK"):
            raise
        return _report(error)
    return result if isinstance(result, int) else 0


def _report(error: Exception) -> int:
    if isinstance(error, TyperException):
        return _usage(error)
    if isinstance(error, UpcallError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get((error.name or "").partition(".")[0])):
        return _fail(
            f"This command needs {error.name}. Install it with: pip install 'upcall[{extra}]'", EXIT_NOT_STARTED
        )
    return _fail(
        f"a mistake of ours: {type(error).__name__}: {error}. UPCALL_TRACEBACK=1 shows where; please report it.", 1
    )


_EXTRAS = {
    "httptools": "server",
    "prometheus_client": "server",
    "uvicorn": "sandbox",
    "uvloop": "server",
}


def _usage(error: TyperException) -> int:
    text = " ".join((error.format_message() if hasattr(error, "format_message") else str(error)).split())
    context = getattr(error, "ctx", None)
    where = getattr(context, "command_path", None) or "upcall"
    if text:
        stop = "" if text.endswith((".", "?", "!")) else "."
        return _fail(f"{text}{stop} Try '{where} --help'.", getattr(error, "exit_code", EXIT_USAGE))
    return EXIT_USAGE  # a bare group has printed its help


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"upcall: {text}\n")
    return code
