"""What all tests share: how Hypothesis searches, the watch over secrets, and environments with nothing else in them."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("laptop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("laptop"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "laptop")


def pytest_configure(config):
    """Watch every test of the run; a module beside this one has no name to import it by."""
    spec = importlib.util.spec_from_file_location("watch_over_secrets", Path(__file__).with_name("canary.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config.pluginmanager.register(module.Plugin(), "canary")


REFERENCE_SECONDS = 0.05
"""What `_reference` takes on a machine of the common kind."""


def _reference():
    start = time.thread_time()
    total = 0
    for number in range(1_000_000):
        total += number
    return time.thread_time() - start


@pytest.fixture
def cpu_seconds():
    """Return what measures a function: the processor's seconds, as many as a machine of the common kind would take."""

    def measure(function, *arguments):
        before = _reference()
        start = time.thread_time()
        function(*arguments)
        took = time.thread_time() - start
        return took / max(1.0, before / REFERENCE_SECONDS, _reference() / REFERENCE_SECONDS)

    return measure


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory):
    """Return what makes an environment of this Python with just some requirements, and returns its interpreter."""
    beside = str(Path(sys.executable).parent)
    uv = shutil.which("uv", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if uv is None:
        pytest.fail(f"uv is neither beside {sys.executable} nor on PATH: pip install uv", pytrace=False)

    def make_environment(*requirements):
        directory = tmp_path_factory.mktemp("environment")
        python = str(directory / "bin" / "python")
        for command in (
            [uv, "venv", "--quiet", "--python", sys.executable, "--allow-existing", str(directory)],
            [uv, "pip", "install", "--quiet", "--python", python, *requirements],
        ):
            made = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=250, check=False)
            if made.returncode:
                pytest.fail(f"{' '.join(command)}: {' '.join(made.stderr.split())}", pytrace=False)
        return python

    return make_environment
