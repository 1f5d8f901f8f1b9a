"""Every example of the document that started the project runs as it stands, against a real sandbox.

The document is the official SDK's page on Software Management Callbacks V2, kept in seed/ word for word.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
from pathlib import Path

import httpx2
import msgspec
import pytest

import upcall
from upcall import AsyncThingSpaceClient, ThingSpaceClient

DOCUMENT = (Path(__file__).parent / "seed" / "software-management-callbacks-v2.md").read_text(encoding="utf-8")
ACCOUNT = "0000123456-00001"
STANDING = "https://192.0.2.7:50559/standing"


def _block(text, heading, language):
    return re.search(rf"## {re.escape(heading)}\n\n```{language}\n(.*?)```", text, re.DOTALL)[1]


def _sections():
    """Yield name, signature, example program and example response of each operation."""
    for section in re.split(r"\n# (?=[A-Z])", DOCUMENT)[1:]:
        signature = re.search(r"```python\n(def .*?)```", section, re.DOTALL)[1]
        name = re.match(r"def (\w+)", signature)[1]
        program = _block(section, "Example Usage", "python")
        response = json.loads(_block(section, "Example Response *(as JSON)*", "json"))
        yield name, signature, program, response


SECTIONS = {name: (signature, program, response) for name, signature, program, response in _sections()}
PREAMBLE = re.search(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)[1]
EXAMPLES = pytest.mark.parametrize("name", SECTIONS)


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Set what a user of the sandbox sets, and nothing else."""
    for name in list(os.environ):
        if name.startswith(("THINGSPACE_", "UPCALL_", "VZ_M2M")):
            monkeypatch.delenv(name)
    for name in ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"THINGSPACE_{name}", "sandbox")
    monkeypatch.setenv("UPCALL_STATE_DIR", str(tmp_path))
    return monkeypatch


@pytest.fixture
def at_sandbox(environment, sandbox):
    """Point the environment at the sandbox, in which one URL is registered."""
    environment.setenv("THINGSPACE_BASE_URL", sandbox)
    with ThingSpaceClient() as client:
        client.callbacks.register_callback(ACCOUNT, {"url": STANDING})


def _expected(name, response):
    """Return what an example must print: its own response, but for list, which tells what is registered."""
    return {"url": STANDING} if name == "list_registered_callbacks" else response


def _as_document(result):
    return msgspec.to_builtins(result)


def test_the_document_holds_the_four_operations():
    """Nothing of the document is passed over: four operations, each with an example and a response."""
    assert list(SECTIONS) == [
        "list_registered_callbacks",
        "update_callback",
        "register_callback",
        "deregister_callback",
    ]
    assert DOCUMENT.count("## Example Usage") == len(SECTIONS)


@EXAMPLES
def test_each_signature_is_the_documents(name):
    """Method and parameter names are the document's, in its order, and so is the class's name."""
    controller = upcall.SoftwareManagementCallbacksV2Controller
    documented = ast.parse(f"{SECTIONS[name][0].strip()}: ...").body[0]
    ours = inspect.signature(getattr(controller, name)).parameters.values()
    named = [parameter.name for parameter in ours if parameter.kind is not parameter.VAR_KEYWORD]
    assert named == [argument.arg for argument in documented.args.args]
    assert f"`{controller.__name__}`" in DOCUMENT


@EXAMPLES
def test_each_example_runs_as_it_stands(name, at_sandbox, capsys):
    """The program of the document, word for word, does what the document says, with a client of the environment."""
    _, program, response = SECTIONS[name]
    with ThingSpaceClient() as client:
        scope = {"client": client} | {public: getattr(upcall, public) for public in upcall.__all__ if "V2" in public}
        exec(compile(PREAMBLE + program, name, "exec"), scope)
        standing = client.callbacks.list_registered_callbacks(ACCOUNT).url
    assert _as_document(scope["result"]) == _expected(name, response)
    assert capsys.readouterr().out == f"{scope['result']}\n"
    assert standing == {"deregister_callback": None, "list_registered_callbacks": STANDING}.get(
        name, response.get("url")
    )


@EXAMPLES
async def test_each_example_runs_with_the_async_twin(name, at_sandbox):
    """The same program with an await in front of each call does the same."""
    _, program, response = SECTIONS[name]
    awaited = program.replace("result = ", "result = await ")
    async with AsyncThingSpaceClient() as client:
        scope = {"client": client} | {public: getattr(upcall, public) for public in upcall.__all__ if "V2" in public}
        code = compile(PREAMBLE + awaited, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        await eval(code, scope)
    assert _as_document(scope["result"]) == _expected(name, response)


def test_the_http_response_of_list_is_read(environment):
    """The document's own response names an http URL, which a reader must take as it is."""
    _, program, response = SECTIONS["list_registered_callbacks"]
    assert response["url"].startswith("http://")
    issued = {"access_token": "b", "sessionToken": "s"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=issued | response))
    with ThingSpaceClient(transport=transport) as client:
        scope = {"client": client}
        exec(compile(PREAMBLE + program, "list", "exec"), scope)
    assert scope["result"].url == response["url"]


@EXAMPLES
def test_each_operation_raises_the_documents_exception_on_400(name, at_sandbox):
    """An account that ThingSpace refuses raises FotaV2ResultException, with its code and message."""
    arguments = ("not_an_account!", {"url": STANDING}) if "update" in name or name.startswith("register") else ("a_b!",)
    with ThingSpaceClient() as client, pytest.raises(upcall.FotaV2ResultException) as caught:
        getattr(client.software_management_callbacks_v2, name)(*arguments)
    assert "| 400 | Unexpected error. | [`FotaV2ResultException`]" in DOCUMENT
    assert (caught.value.status_code, caught.value.error_code) == (400, "INVALID_PARAMETER")
    assert caught.value.error_message
