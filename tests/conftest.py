"""What all tests share: how Hypothesis searches, and the watch over secrets."""

import importlib.util
import os
from pathlib import Path

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
