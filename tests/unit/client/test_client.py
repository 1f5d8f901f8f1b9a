"""The clients' options, and what they show of themselves."""

from __future__ import annotations

import inspect

import pytest

import upcall
from upcall import AsyncThingSpaceClient, Credentials, ThingSpaceClient
from upcall.client import async_controllers, controllers
from upcall.errors import SettingsError

BOTH = pytest.mark.parametrize("kind", [ThingSpaceClient, AsyncThingSpaceClient])


@BOTH
def test_production_is_the_default(kind):
    """Without any setting the client means the provider itself."""
    assert kind().base_url == "https://thingspace.verizon.com/api"


@BOTH
def test_an_environment_is_known_by_its_name(kind):
    """The official SDK's environments are there by name, and an unknown name lists them."""
    assert kind(environment="staging").base_url == "https://staging.thingspace.verizon.com/api"
    with pytest.raises(SettingsError, match="production, staging"):
        kind(environment="prod")


def test_what_the_caller_names_wins_over_the_variable(monkeypatch):
    """base_url, then environment, then THINGSPACE_BASE_URL."""
    monkeypatch.setenv("THINGSPACE_BASE_URL", "http://127.0.0.1:1/api/")
    assert ThingSpaceClient().base_url == "http://127.0.0.1:1/api"
    assert ThingSpaceClient(base_url="https://h/api").base_url == "https://h/api"
    assert ThingSpaceClient(environment="production").base_url == "https://thingspace.verizon.com/api"
    with pytest.raises(SettingsError, match="both"):
        ThingSpaceClient(environment="production", base_url="https://h/api")


@pytest.mark.parametrize(
    "url",
    [
        "http://thingspace.verizon.com/api",
        "ftp://localhost/api",
        "https:///api",
        "localhost:8080/api",
        "https://user:canary@h/api",
        "https://h/api?canary=1",
        "https://h:99999/api",
        "https://a..b/api",
        "https://[::1/api",
    ],
)
def test_a_root_to_which_no_secret_should_go_is_refused(url):
    """Plain http elsewhere, other schemes and URLs that carry secrets are refused at construction, unshown."""
    with pytest.raises(SettingsError) as caught:
        ThingSpaceClient(base_url=url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("options", [{"timeout_seconds": 0}, {"max_retries": -1}, {"max_elapsed_seconds": -1}])
@BOTH
def test_numbers_out_of_range_are_refused(kind, options):
    """A timeout of nothing, or a negative count, raises ValueError at construction."""
    with pytest.raises(ValueError, match="must be"):
        kind(**options)


@BOTH
def test_neither_client_nor_its_parts_show_a_secret(kind):
    """The repr of a client, its credentials and everything reachable by name shows no secret."""
    credentials = Credentials(client_id="canary1", client_secret="canary2", username="canary3", password="canary4")
    client = kind(credentials=credentials)
    shown = [repr(client), str(client), repr(client.credentials), repr(client.callbacks)]
    shown += [repr(value) for value in vars(client).values()]
    shown += [repr(value) for value in vars(client._exchange).values()]
    assert "canary" not in " ".join(shown)


@pytest.mark.parametrize("name", controllers.__all__)
def test_the_twins_have_the_same_methods_and_parameters(name):
    """Sync and async controllers differ in nothing but the await."""
    sync, twin = getattr(controllers, name), getattr(async_controllers, f"Async{name}")
    methods = {key for key in dir(sync) if not key.startswith("_")}
    assert methods == {key for key in dir(twin) if not key.startswith("_")}
    for method in methods - {"with_raw_response"}:
        assert inspect.signature(getattr(sync, method)) == inspect.signature(getattr(twin, method))


def test_the_clients_have_the_same_options_and_attributes():
    """Both clients take the same options and offer the same controllers."""
    options = [list(inspect.signature(kind).parameters) for kind in (ThingSpaceClient, AsyncThingSpaceClient)]
    assert options[0] == options[1]
    ours = {key for key in vars(ThingSpaceClient()) if not key.startswith("_")}
    assert ours == {key for key in vars(AsyncThingSpaceClient()) if not key.startswith("_")}
    assert {"callbacks", "software_management_callbacks_v2", "campaigns_v2"} <= ours


def test_the_callbacks_go_by_both_names():
    """The official SDK's name and the short one are the same object."""
    client = ThingSpaceClient()
    assert client.callbacks is client.software_management_callbacks_v2
    assert isinstance(client.callbacks, upcall.SoftwareManagementCallbacksV2Controller)
