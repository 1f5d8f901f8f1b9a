"""What a type checker knows: right uses of the client pass strictly, wrong ones do not, and no type is unknown."""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import upcall
from upcall import client

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tests" / "typing" / "client_examples.py"
PACKAGE = Path(upcall.__file__).parent
VERSIONS = ["3.11", "3.13"]
SECONDS = 100


def run(*command, cwd):
    """Run a command that finds this interpreter first, and measures nothing."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PYTHON"))}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.fixture
def project(tmp_path):
    """A user's project whose checkers are strict: the examples, and nothing of ours beside them."""
    shutil.copy(EXAMPLES, tmp_path)
    settings = {"typeCheckingMode": "strict", "reportUnnecessaryTypeIgnoreComment": "error"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.parametrize("version", VERSIONS)
def test_mypy_passes_the_examples_strictly(version, project):
    """Each right use has the type that it says, and each wrong one is the error that it says."""
    strict = "--strict", "--enable-error-code", "ignore-without-code", "--python-version", version
    done = run(sys.executable, "-m", "mypy", *strict, EXAMPLES.name, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_pyright_passes_the_examples_strictly(version, project):
    """The other checker agrees: right uses pass in its strict mode, and no `type: ignore` is without need."""
    python = "--pythonpath", sys.executable, "--pythonversion", version
    done = run(sys.executable, "-m", "pyright", *python, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_each_wrong_use_is_found_where_it_stands(checker, project):
    """Without the comments that expect them the errors are those of the wrong uses, all of them and no others."""
    lines = EXAMPLES.read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "# type: ignore" in line}
    (project / EXAMPLES.name).write_text("\n".join(line.partition("  # type: ignore")[0] for line in lines))
    if checker == "mypy":
        done = run(sys.executable, "-m", "mypy", "--strict", "--output", "json", EXAMPLES.name, cwd=project)
        found = {json.loads(line)["line"] for line in done.stdout.splitlines() if line.startswith("{")}
    else:
        done = run(sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, cwd=project)
        report = json.loads(done.stdout)["generalDiagnostics"]
        found = {one["range"]["start"]["line"] + 1 for one in report if one["severity"] == "error"}
    assert found == wrong, done.stderr


def attributes_in(kind):
    """Return the attributes that the examples' functions of a kind use, those of wrong uses left out."""
    functions = [node for node in ast.parse(EXAMPLES.read_text()).body if type(node) is kind]
    right = [function for function in functions if not function.name.startswith("mis")]
    return {node.attr for function in right for node in ast.walk(function) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_examples_use_every_public_method(is_async):
    """A method that is added to a client or a controller is added to the examples."""
    used = attributes_in(ast.AsyncFunctionDef if is_async else ast.FunctionDef)
    names = [name for name in client.__all__ if name.endswith(("Controller", "Client"))]
    kinds = [getattr(client, name) for name in names if name.startswith("Async") is is_async]
    public = {name for kind in kinds for name in dir(kind) if not name.startswith("_")}
    methods = {name for name in public if any(callable(getattr(kind, name, None)) for kind in kinds)}
    assert "list_many" in methods
    assert methods - used == set()


def test_nothing_public_has_an_unknown_type(tmp_path):
    """Pyright infers no type of a public name: each one is written down, so every checker sees the same."""
    done = run(
        sys.executable, "-m", "pyright", "--verifytypes", "upcall", "--ignoreexternal", "--outputjson", cwd=tmp_path
    )
    report = json.loads(done.stdout)["typeCompleteness"]
    assert Path(report["packageRootDirectory"]) == PACKAGE
    unknown = {
        symbol["name"]: [one["message"] for one in symbol["diagnostics"]]
        for symbol in report["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"]
    }
    assert {name: said for name, said in unknown.items() if said} == {}
    assert report["completenessScore"] == 1


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that users install."""
    uv = os.environ.get("UV") or shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
    assert uv, "uv builds the wheel: python -m pip install uv"
    directory = tmp_path_factory.mktemp("wheel")
    build = uv, "build", "--wheel", "--out-dir", directory, ROOT
    done = run(*build, "--offline", cwd=directory)
    if done.returncode != 0:  # what builds it was never fetched here
        done = run(*build, cwd=directory)
    assert done.returncode == 0, done.stderr
    (made,) = directory.glob("*.whl")
    return made


def test_the_wheel_says_that_it_is_typed(wheel):
    """A checker believes the annotations of an installed package only where `py.typed` lies in it."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "upcall/py.typed" in names
    modules = {f"upcall/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*.py")}
    assert modules <= names
