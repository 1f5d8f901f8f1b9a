"""Start the command line, or say which line installs it."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the ``upcall`` command and exit with its status."""
    try:
        from upcall.cli.main import run  # noqa: PLC0415 - the base package has no command line
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in {"typer", "rich"}:
            sys.stderr.write(
                "upcall: the command line is not installed. Install it with: pip install 'upcall[cli]'"
                " (or 'upcall[all]' for the listener and the sandbox too).\n"
            )
            sys.exit(3)
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run())


if __name__ == "__main__":
    main()
