"""`import upcall` gives every public name and loads none of the rooms."""

import json
import os
import subprocess
import sys

import pytest

import upcall
import upcall.client
import upcall.thingspace


def loaded_after(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    # Coverage, which starts in every process of ours, would load modules of its own.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200, env=plain)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("package", [upcall, upcall.client, upcall.thingspace], ids=lambda package: package.__name__)
def test_all_is_exact(package):
    """`__all__` names each thing once, is exactly what loads lazily, and each name of it loads."""
    assert len(package.__all__) == len(set(package.__all__))
    assert set(package.__all__) == {name for names in package._NAMES_OF.values() for name in names}
    assert set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name) is not None for name in package.__all__)


@pytest.mark.parametrize("name", upcall.__all__)
def test_every_public_name_is_there(name):
    """Each public name loads, is the object of that name, and says what it is."""
    value = getattr(upcall, name)
    assert value.__name__ == name
    assert value.__doc__
    assert getattr(upcall, name) is value


def test_unknown_name_is_an_attribute_error():
    """A name that is not there fails as in any module."""
    with pytest.raises(AttributeError, match="'nothing'"):
        upcall.nothing  # noqa: B018


def test_version_is_told():
    """The version is the installed distribution's."""
    assert upcall.__version__.count(".") == 2


def test_import_loads_no_room():
    """`import upcall` costs the names: neither a third-party library nor a database nor a room of ours."""
    loaded = loaded_after("import upcall")
    roots = {name.partition(".")[0] for name in loaded}
    assert not roots & {"aiohttp", "httptools", "httpx2", "msgspec", "rich", "sqlite3", "typer", "uvicorn", "uvloop"}
    assert {name for name in loaded if name.startswith("upcall.")} <= {"upcall.lazy", "upcall.version"}


def test_contract_loads_no_library_but_msgspec():
    """Parsing a callback loads neither the client's nor the server's libraries."""
    roots = {name.partition(".")[0] for name in loaded_after("from upcall import parse_callback")}
    assert "msgspec" in roots
    assert not roots & {"aiohttp", "httpx2", "sqlite3", "ssl", "typer", "uvicorn"}


def test_client_loads_its_library_at_the_first_call():
    """Naming the clients and making one costs no HTTP library and no TLS context."""
    loaded = loaded_after(
        "import upcall\n"
        "upcall.ThingSpaceClient, upcall.AsyncThingSpaceClient, upcall.SoftwareManagementCallbacksV2Controller"
    )
    assert not {name.partition(".")[0] for name in loaded} & {"aiohttp", "httpx2", "sqlite3", "typer", "uvicorn"}
