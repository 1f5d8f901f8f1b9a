"""What a check comes to, and how one check's end decides over those that rest on it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from upcall.registration.doctor.catalogue import CHECKS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Chain", "CheckResult", "Finding", "Status", "failed", "ok", "skipped", "unknown", "warning"]

Status = Literal["ok", "failed", "warning", "skipped", "unknown"]
"""How a check ended: ``unknown`` could not tell, which is no failure; ``skipped`` says why it was not made."""


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """Say how one check ended; no text of it holds a token.

    Args:
        name: The check.
        status: How it ended, see `Status`.
        found: What was found.
        why: Why it matters.
        todo: What to do, empty where there is nothing to do.
        account: The account that it is about; None where it is about this machine or the provider.
        credentials: The ``[credentials.…]`` table that it is about, None for the environment's or none.
    """

    name: str
    status: Status
    found: str
    why: str
    todo: str = ""
    account: str | None = None
    credentials: str | None = None


class Finding(msgspec.Struct, frozen=True):
    """Hold what a check came to by itself.

    Args:
        status: How it ended.
        found: What was found.
        todo: What to do; empty for what the catalogue says.
        passes: Whether the checks that rest on it can be made.
    """

    status: Status
    found: str
    todo: str = ""
    passes: bool = True


def ok(found: str) -> Finding:
    """Say that all is well."""
    return Finding("ok", found)


def failed(found: str, todo: str = "", *, passes: bool = False) -> Finding:
    """Say that something is wrong.

    Args:
        found: What.
        todo: What to do; empty for what the catalogue says.
        passes: Whether the checks that rest on it can be made all the same.
    """
    return Finding("failed", found, todo, passes)


def warning(found: str, todo: str = "") -> Finding:
    """Say that something is not as it should be, and works."""
    return Finding("warning", found, todo)


def skipped(found: str, *, passes: bool = False) -> Finding:
    """Say that there was nothing to check, or no way to.

    Args:
        found: Why.
        passes: Whether the checks that rest on it can be made all the same.
    """
    return Finding("skipped", found, passes=passes)


def unknown(found: str) -> Finding:
    """Say that nothing tells whether all is well."""
    return Finding("unknown", found)


class Chain:
    """Turn findings into results, in the catalogue's order, so that one fault is one failure.

    A check is skipped where one that it rests on failed, or was skipped. One that failed is skipped too where another
    failure explains it.

    Args:
        before: The chain that this one goes on from: of the machine, of the credentials.
    """

    def __init__(self, before: Chain | None = None) -> None:
        self.roots: dict[str, str | None] = dict(before.roots) if before is not None else {}
        """For each check the one because of which those that rest on it are skipped, None where they are not."""
        self.failed: dict[str, str] = dict(before.failed) if before is not None else {}
        """For each check that failed by itself the one that explains it: itself, unless another one does."""
        self.results: list[CheckResult] = []

    def take(
        self, findings: Mapping[str, Finding], *, account: str | None = None, credentials: str | None = None
    ) -> None:
        """Add the results of some checks.

        Args:
            findings: What each came to by itself, by its name.
            account: The account that they are about.
            credentials: The credentials that they are about.
        """
        for name, check in CHECKS.items():
            if name in findings:
                finding = self._settled(name, findings[name])
                todo = finding.todo or check.todo if finding.status in {"failed", "warning"} else ""
                self.results.append(
                    CheckResult(
                        name=name,
                        status=finding.status,
                        found=finding.found,
                        why=check.why,
                        todo=todo,
                        account=account,
                        credentials=credentials,
                    )
                )

    def _settled(self, name: str, finding: Finding) -> Finding:
        check = CHECKS[name]
        root = next((root for rest in check.rests_on if (root := self.roots.get(rest))), None)
        if root is not None:
            finding = skipped(f"because {root} {'failed' if root in self.failed.values() else 'was skipped'}")
        elif finding.status == "failed":
            root = next((self.failed[other] for other in check.explained_by if other in self.failed), None)
            self.failed[name] = root or name
            if root is not None:
                finding = skipped(f"because {root} failed; seen here: {finding.found}", passes=finding.passes)
        self.roots[name] = None if finding.passes else root or name
        return finding
