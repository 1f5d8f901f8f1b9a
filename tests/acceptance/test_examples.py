"""The example projects pass their own tests with nothing installed but what they ask for."""

import shutil
import subprocess
from pathlib import Path

import pytest

from upcall.cli.processes import clean_environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(make_environment):
    """Return a Python that has ``upcall[sandbox]`` and pytest, and nothing else that was asked for."""
    return make_environment(f"{ROOT}[sandbox]", "pytest")


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").iterdir() if path.is_dir()))
def test_an_example_passes_its_own_tests(python, name, tmp_path):
    """A copy of the project, in a clean environment: every test passes, and none is skipped."""
    project = tmp_path / name
    shutil.copytree(ROOT / "examples" / name, project, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    ended = subprocess.run(
        [python, "-m", "pytest", "-q"],
        cwd=project,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "8 passed" in ended.stdout.splitlines()[-1]
