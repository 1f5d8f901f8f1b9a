"""Examples of use type-check strictly under mypy and pyright, wrong ones do not, and every public name has a type."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tests" / "typing" / "client_examples.py"
BIN = Path(sys.executable).parent


@pytest.fixture
def check(tmp_path):
    """Run a checker in an empty directory, with this environment's packages, and return how it ended."""
    own = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(BIN.parent)}

    def run(*words):
        return subprocess.run(
            [str(BIN / words[0]), *words[1:]], capture_output=True, text=True, check=False, cwd=tmp_path, env=own
        )

    return run


def test_examples_of_use_pass_mypy(check):
    """Strict mypy takes each right use, and finds each wrong one: an ignore without an error is an error."""
    ended = check("mypy", "--strict", "--warn-unused-ignores", "--disable-error-code=unused-coroutine", str(EXAMPLES))
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout


def test_examples_of_use_pass_pyright(check, tmp_path):
    """Strict pyright takes each right use, and finds each wrong one."""
    shutil.copy(EXAMPLES, tmp_path)
    settings = {"typeCheckingMode": "strict", "reportUnnecessaryTypeIgnoreComment": "error"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    ended = check("pyright", "--outputjson")
    found = json.loads(ended.stdout)
    assert found["summary"]["filesAnalyzed"] == 1
    assert found["generalDiagnostics"] == []


def test_every_public_name_has_a_type(check):
    """Nothing that the package exports is left to inference, so that all checkers agree."""
    ended = check("pyright", "--verifytypes", "upcall", "--ignoreexternal", "--outputjson")
    found = json.loads(ended.stdout)["typeCompleteness"]
    incomplete = [symbol["name"] for symbol in found["symbols"] if not symbol["isTypeKnown"]]
    assert incomplete == []
    assert found["completenessScore"] == 1
    assert found["exportedSymbolCounts"]["withKnownType"] > 1000


def test_the_wheel_says_that_it_is_typed(tmp_path):
    """`py.typed` is in the wheel, and so is every module."""
    uv = shutil.which("uv", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    assert uv, "uv is not there; get it with: pip install uv"
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)], check=True, timeout=100)
    (wheel,) = tmp_path.glob("upcall-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "upcall/py.typed" in names
    modules = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "upcall").rglob("*.py")}
    assert modules <= names
