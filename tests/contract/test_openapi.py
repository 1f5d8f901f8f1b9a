"""The sandbox's OpenAPI document, and Schemathesis, which holds every call of the sandbox to it.

Each call, or each chain of calls, meets a sandbox of its own in this process, so that what one of them ends, revokes,
forgets or switches on is nobody else's trouble. `SCHEMATHESIS_EXAMPLES=500` in the environment searches for longer.
"""

import copy
import os
import re
import uuid
from random import Random
from types import SimpleNamespace
from typing import NamedTuple

import httpx2
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import given, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import GenerationMode
from schemathesis.core.failures import AcceptedNegativeData, Failure, FailureGroup, MalformedJson
from schemathesis.openapi.checks import (
    IgnoredAuth,
    JsonSchemaError,
    MissingContentType,
    RejectedPositiveData,
    UndefinedContentType,
    UndefinedStatusCode,
    UnsupportedMethodResponse,
    UseAfterFree,
)

from upcall.sandbox import Faults, ManualClock, RealClock, Sandbox
from upcall.sandbox.campaigns import CampaignRequest, TimeWindow
from upcall.sandbox.http import MAX_BODY_BYTES
from upcall.sandbox.openapi import document
from upcall.sandbox.planning import new_campaign
from upcall.sandbox.routes import ROUTES
from upcall.version import __version__

ACCOUNT = "0000123456-00001"
CAMPAIGN = "60b5d639-ccdc-4db8-8824-069bd94c95bf"
DEVICE = "990013907835573"
URL = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"
BASE_URL = "http://127.0.0.1"
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
START = 1_700_000_000  # 2023-11-14, 22:13 UTC
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "20"))

CAMPAIGN_BODY = {
    "softwareName": "FOTA_01To02",
    "softwareFrom": "01",
    "softwareTo": "02",
    "distributionType": "HTTP",
    "startDate": "2023-11-15",
    "endDate": "2023-11-16",
    "deviceList": [DEVICE],
}


class World:
    """A sandbox that is begun anew: with a listener, a campaign, and a caller who is logged in."""

    def __init__(self):
        self.peer = "127.0.0.1"
        self.begin()

    def begin(self, **options):
        self.sandbox = Sandbox(**{"clock": ManualClock(START), "poster": self, "seed": 1} | options)
        self.sandbox.access.register(ACCOUNT, URL)
        self.sandbox.campaigns.add(campaign())
        self.log_in()

    def log_in(self):
        """Have live credentials, whatever became of those before."""
        now, access, secrets = self.sandbox.clock.now(), self.sandbox.access, self.sandbox.secrets
        access.unlock("sandbox")
        self.bearer = access.issue_token("sandbox", now, secrets)[0].token
        self.session = access.log_in("sandbox", "sandbox", now, secrets).session_token

    def pass_hours(self, hours):
        """Move the clock; what fell due meanwhile happens before the next call."""
        self.sandbox.clock.move_to(self.sandbox.clock.now() + hours * 3600)
        self.log_in()

    def credentials(self, *schemes):
        """Return live headers for these security schemes."""
        headers = {
            "basic": ("Authorization", "Basic c2FuZGJveDpzYW5kYm94"),
            "bearer": ("Authorization", f"Bearer {self.bearer}"),
            "session": ("VZ-M2M-Token", self.session),
        }
        return dict(headers[scheme] for scheme in schemes)

    async def post(self, url, body, headers, **_):
        """Take every callback and acknowledge it."""
        return SimpleNamespace(status=200)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return  # nothing here runs by itself
        if self.sandbox.clock.is_manual:
            await self.sandbox.advance(0)
        await self.sandbox({**scope, "client": (self.peer, 50000)}, receive, send)


def campaign():
    """Return the campaign that every world has since `START`; its identifier is the document's example."""
    request = CampaignRequest(
        software_name="FOTA_01To02",
        software_from="01",
        software_to="02",
        distribution_type="HTTP",
        start_date="2023-11-15",
        end_date="2023-11-16",
        download_time_window_list=(TimeWindow(0, 12),),
    )
    ids, devices = SimpleNamespace(getrandbits=lambda _: uuid.UUID(CAMPAIGN).int), (DEVICE, "990013907884259")
    return new_campaign(request, devices, account=ACCOUNT, now=START, options=None, busy=(), ids=ids, random=Random(1))


# --- What Schemathesis is told ---------------------------------------------------------------------------------------


class Allowed(NamedTuple):
    """A failure that is none.

    Args:
        failure: What Schemathesis calls it.
        call: A pattern of the call's method and path.
        answer: A pattern of the answer's body, or of the message in it.
        reason: Why.
    """

    failure: type[Failure]
    call: str
    answer: str
    reason: str


ALLOWED = [
    Allowed(
        UnsupportedMethodResponse,
        r"\w+ /(?!_sandbox/).*",
        r'\{"fault":\{"code":"900906",.*',
        "the gateway answers 400 with 900906 to what it does not know (documented), where HTTP has 405",
    ),
    Allowed(MissingContentType, r"GET .*/callbacks/.*|POST .*/revoke", r"", "OpenAPI cannot say: or no body at all"),
    Allowed(MalformedJson, r"GET .*/callbacks/.*", r"", "the same"),
    Allowed(UseAfterFree, r"GET .*/campaigns/.*", r".*", "a campaign that was stopped can still be read (documented)"),
    Allowed(
        AcceptedNegativeData,
        r"GET /_sandbox/(deliveries|summary)",
        r'\[\]|\{"callbacks":0,.*',
        "a filter: no callback is an impossible account's",
    ),
]
"""Where a check and the documented behaviour contradict each other."""

ALLOWED += [
    Allowed(RejectedPositiveData, call, rf'\{{"errorCode":"[\w.]+","errorMessage":"{message}"\}}', reason)
    for call, message, reason in (
        (
            r".*/campaigns/.*\{id\}.*",
            "Invalid upgradeId",
            "V2 documents 400 as its only error status: an unknown campaign has no 404",
        ),
        (r".*\{account\}.*", "[Ll]astSeen(Device|Campaign)Id Not Valid", "it is an entry of the page before"),
        (r".*/campaigns/.*", "Invalid endDate: it is before startDate", "a schema does not compare members"),
        (r".*/campaigns/.*", "The campaign is Campaign[A-Z][a-z]+", "it depends on the campaign's state"),
        (r".*/campaigns/.*", "Input binding error: Expected `int`, got `float`.*", "5.0 is an integer to JSON Schema"),
        (r".*/campaigns/.*", "Invalid _sandbox.*", "a schema does not count devices"),
        (r".*/campaigns/.*", "Invalid Type: append or remove", "`Type` and `type` are one member, and both were sent"),
        (r".*/callbacks/.*", "Invalid callback url: .*", "not every URI can be called"),
        (r".*/login", "The user name or the password is not valid.", "nobody guesses the password"),
        (r"POST /_sandbox/clock", "Give either advance_seconds or to_next", "a schema's members are independent"),
        (
            r"PUT /_sandbox/faults",
            r"(There is no fault|The rate of fault|The faults are) .*",
            "a schema lists neither",
        ),
    )
]
"""Refusals that no schema of a single member can tell."""


def is_failure(context, failure, case, response):
    """Tell whether a failure is one; Schemathesis asks this of each."""
    return not any(
        isinstance(failure, allowed.failure)
        and re.fullmatch(allowed.call, case.operation.label)
        and re.fullmatch(allowed.answer, response.content.decode(), re.DOTALL)
        for allowed in ALLOWED
    )


def load(described, parameters=None, **generation):
    """Return a document as Schemathesis reads it, with a world to call.

    Args:
        described: The document.
        parameters: Values of parameters that are not made up.
        generation: How the others are.
    """
    config = {
        "seed": 1,
        "base-url": BASE_URL,
        "parameters": parameters or {},
        "generation": {"deterministic": True, "max-examples": EXAMPLES} | generation,
        # What one call was answered must not decide what another one sends.
        "phases": {
            "coverage": {"extra-data-sources": {"responses": False}},
            "fuzzing": {"extra-data-sources": {"responses": False}, "error-feedback": {"enabled": False}},
        },
    }
    schema = schemathesis.openapi.from_dict(copy.deepcopy(described), config=schemathesis.Config.from_dict(config))
    schema.app = World()
    schema.hook("filter_failure")(is_failure)
    return schema


def schemes_of(operation):
    """Return the names of the security schemes that an operation asks for."""
    return [name for requirement in operation.definition.raw["security"] for name in requirement]


def as_caller(case):
    """Return what a call is made with by somebody who may make it."""
    headers = case.operation.app.credentials(*schemes_of(case.operation))
    if case.media_type is not None and case.media_type not in case.operation.definition.raw["requestBody"]["content"]:
        # What `*/*` stands for there: JSON under that very type, as the official SDKs send it.
        case.media_type = JSON
        headers["Content-Type"] = "*/*"
    return {"headers": headers}


GIVEN_CREDENTIALS = {"with-security-parameters": False}
CALLS = load(document(ROUTES), **GIVEN_CREDENTIALS)
CALLS_ABOUT_A_CAMPAIGN = load(
    document(ROUTES), {"path.account": ACCOUNT, "path.id": CAMPAIGN}, **GIVEN_CREDENTIALS
).include(path_regex=r"campaigns/.*\{id\}")
CALLS_OF_STRANGERS = load(document(ROUTES)).include(lambda context: bool(schemes_of(context.operation)))


# --- Every answer is one of the document -----------------------------------------------------------------------------


@CALLS.parametrize()
def test_every_answer_is_as_documented(case):
    """Whatever a caller sends, sound or not, the answer's status, content type and body are those of the document."""
    case.operation.app.begin()
    case.call_and_validate(**as_caller(case))


@CALLS_ABOUT_A_CAMPAIGN.parametrize()
@pytest.mark.parametrize("hours", [0, 20, 80])
def test_every_answer_about_a_campaign_is_as_documented(case, hours):
    """The same holds for a campaign that is there: one that is queued, one that runs, and one that is over."""
    case.operation.app.begin()
    case.operation.app.pass_hours(hours)
    case.call_and_validate(**as_caller(case))


@CALLS_OF_STRANGERS.parametrize()
def test_nobody_calls_without_live_credentials(case):
    """Whoever has no live credentials is refused, in the shapes of the document."""
    case.operation.app.begin()
    case.call_and_validate()


def test_every_chain_of_calls_is_answered_as_documented():
    """Campaigns that are scheduled, changed, followed and stopped, hours apart, are answered as documented."""

    class Chain(CALLS.as_state_machine()):
        def setup(self):
            CALLS.app.begin()

        def get_call_kwargs(self, case):
            CALLS.app.pass_hours(7)
            return as_caller(case)

    run_state_machine_as_test(
        Chain,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=10, derandomize=True, database=None, deadline=None
        ),
    )


# --- Every answer of the document is given ---------------------------------------------------------------------------

PARAMETERS = {"account": ACCOUNT, "id": CAMPAIGN, "imei": DEVICE, "username": "sandbox"}
BODIES = {
    "request_token_thingspace_oauth": {"data": {"grant_type": "client_credentials"}},
    "revoke_token": {"data": {"token": "another"}},
    "start_connectivity_management_session": {"json": {"username": "sandbox", "password": "sandbox"}},
    "register_callback": {"json": {"url": URL}},
    "update_callback": {"json": {"url": URL}},
    "schedule_campaign_firmware_upgrade": {"json": CAMPAIGN_BODY},
    "update_campaign_firmware_devices": {"json": {"Type": "append", "deviceList": [DEVICE]}},
    "update_campaign_dates": {"json": {"endDate": "2023-11-20"}},
    "move_clock": {"json": {"to_next": True}},
    "set_faults": {"json": {}},
}
"""A sound body for each call that takes one."""


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_every_answer_of_the_document_is_given(route):
    """The document names exactly the statuses and content types that a call has, faults and all."""
    operation = CALLS[route.path][route.method]
    answers = [answer async for answer in every_answer(route, World(), schemes_of(operation))]
    for answer in answers:
        if answer.content:
            operation.validate_response(answer)
    given = {(answer.status_code, answer.headers.get("content-type", "").partition(";")[0]) for answer in answers}
    described = {
        (int(status), media_type)
        for status, response in operation.definition.raw["responses"].items()
        for media_type in response["content"]
    }
    assert given == described | ({(200, "")} if route.result is None or route.may_be_empty else set())


async def every_answer(route, world, schemes):
    """Yield the answers to a sound call, and to one with each thing wrong that can be."""
    transport = httpx2.ASGITransport(world)
    async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:

        async def ask(*, account=ACCOUNT, campaign_id=CAMPAIGN, headers=None, **changed):
            path = route.path.format(**PARAMETERS | {"account": account, "id": campaign_id})
            body = changed or BODIES.get(route.name, {})
            live = world.credentials(*schemes) if headers is None else headers
            return await client.request(route.method, path, headers=live, **body)

        yield await ask()
        yield await ask(account="other")
        yield await ask(account="no_account")
        yield await ask(campaign_id="6f1c0a3e-0000-4000-8000-000000000000")
        if "state" in route.query:
            yield await ask(params={"state": "none"})
        yield await ask(content=b"{")
        yield await ask(content=b" " * (MAX_BODY_BYTES + 1))
        yield await ask(headers={})
        yield await ask(headers={"Authorization": "Basic eDp5"})
        yield await ask(headers=world.credentials("bearer"))
        world.begin(clock=RealClock())
        yield await ask()
        for name in ("unauthorized", "rate_limited", "server_error", "html"):
            world.begin(faults=Faults({name: 1.0}))
            for _ in range(12):
                yield await ask()
        world.begin()
        world.peer = "10.0.0.9"
        yield await ask()


# --- The document ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def served():
    """Get the document as a caller does: without credentials."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(World()), base_url=BASE_URL) as client:
        return (await client.get("/openapi.json")).json()


def operations_of(described):
    return {(method, path): one for path, methods in described["paths"].items() for method, one in methods.items()}


def references_in(node):
    if isinstance(node, dict):
        yield from [node["$ref"]] if "$ref" in node else []
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from references_in(item)


def test_the_document_is_openapi(served):
    """The document is OpenAPI 3.1 by the official schema, its own schemas are JSON Schema, and each reference leads
    somewhere.
    """
    assert served["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(served).validate()
    schemas = served["components"]["schemas"]
    for schema in schemas.values():
        jsonschema_rs.Draft202012Validator(schema | {"components": served["components"]})
    assert {reference.removeprefix("#/components/schemas/") for reference in references_in(served)} == set(schemas)


def test_every_route_is_described(served):
    """Each method of each path is in the document, under a name of its own."""
    operations = operations_of(served)
    assert set(operations) == {(route.method.lower(), route.path) for route in ROUTES}
    assert len({operation["operationId"] for operation in operations.values()}) == len(ROUTES)


def test_what_the_document_says_of_itself(served):
    """The document says that this is a sandbox of which version, and where it deviates."""
    assert served["info"]["version"] == __version__
    assert "sandbox" in served["info"]["title"]
    assert "docs/sandbox.md" in served["info"]["description"]
    assert served["servers"] == [{"url": "/"}]


BOTH = ["bearer", "session"]


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("post", "/api/ts/v1/oauth2/token", ("request_token_thingspace_oauth", ["tokens"], ["basic"], [FORM])),
        (
            "post",
            "/api/m2m/v1/session/login",
            ("start_connectivity_management_session", ["tokens"], ["bearer"], [JSON]),
        ),
        ("put", "/api/fota/v2/callbacks/{account}", ("update_callback", ["callbacks"], BOTH, [JSON, "*/*"])),
        (
            "get",
            "/api/fota/v2/reports/{account}/campaigns/{id}/devices",
            ("get_campaign_device_status", ["reports"], BOTH, []),
        ),
        ("post", "/_sandbox/clock", ("move_clock", ["sandbox"], [], [JSON])),
    ],
)
def test_what_an_operation_says(served, method, path, says):
    """An operation has the official SDK's name, what it asks for, and the content types that SDKs really send."""
    operation = served["paths"][path][method]
    security = [scheme for requirement in operation["security"] for scheme in requirement]
    sent_as = list(operation.get("requestBody", {}).get("content", []))
    assert (operation["operationId"], operation["tags"], security, sent_as) == says


def test_what_is_known_from_where(served):
    """What a handler's docstring says, its source with it, is what the document says."""
    operation = served["paths"]["/api/fota/v2/callbacks/{account}"]["get"]
    assert operation["summary"] == "The registered URL, or nothing at all where none is."
    assert operation["description"] == "Source: the empty answer is documented for V1 and V3, inferred for V2."


# --- Schemathesis finds what is wrong --------------------------------------------------------------------------------


def wrong_member(described):
    described["components"]["schemas"]["DevicePage"]["properties"]["hasMoreData"] = {"type": "integer"}


def wrong_status(described):
    del described["paths"]["/api/fota/v2/callbacks/{account}"]["post"]["responses"]["400"]


def wrong_content_type(described):
    content = described["paths"]["/api/fota/v2/software/{account}"]["get"]["responses"]["200"]["content"]
    content["text/plain"] = content.pop(JSON)


def wrong_body(described):
    described["components"]["schemas"]["CampaignBody"]["properties"]["startDate"] = {"type": "integer"}


def wrong_demand(described):
    described["components"]["schemas"]["RevokeForm"]["required"] = ["token", "grant_type"]


def wrong_guard(described):
    described["paths"]["/openapi.json"]["get"]["security"] = [{"bearer": []}]


@pytest.mark.parametrize(
    ("make_wrong", "method", "path", "mode", "failure"),
    [
        (wrong_member, "GET", "/api/fota/v2/devices/{account}", GenerationMode.POSITIVE, JsonSchemaError),
        (wrong_status, "POST", "/api/fota/v2/callbacks/{account}", GenerationMode.NEGATIVE, UndefinedStatusCode),
        (wrong_content_type, "GET", "/api/fota/v2/software/{account}", GenerationMode.POSITIVE, UndefinedContentType),
        (wrong_body, "POST", "/api/fota/v2/campaigns/{account}", GenerationMode.POSITIVE, RejectedPositiveData),
        (wrong_demand, "POST", "/api/ts/v1/oauth2/revoke", GenerationMode.NEGATIVE, AcceptedNegativeData),
        (wrong_guard, "GET", "/openapi.json", GenerationMode.POSITIVE, IgnoredAuth),
    ],
)
def test_a_wrong_document_is_found_out(make_wrong, method, path, mode, failure):
    """The run that finds nothing in our document finds what is wrong in one that was made wrong."""
    described = copy.deepcopy(document(ROUTES))
    make_wrong(described)
    operation = load(described, **GIVEN_CREDENTIALS)[path][method]

    @settings(max_examples=100, derandomize=True, database=None, deadline=None, report_multiple_bugs=False)
    @given(operation.as_strategy(generation_mode=mode))
    def run(case):
        case.operation.app.begin()
        case.call_and_validate(**as_caller(case))

    with pytest.raises(FailureGroup) as found:
        run()
    assert failure in {type(one) for one in found.value.exceptions}


# --- What Schemathesis does not think of -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["Basic Ä", "Basic ====", "Basic /////w==", "Basic \xff"])
async def test_basic_credentials_that_are_no_text(value):
    """Basic credentials that nobody could have encoded are wrong credentials."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(World()), base_url=BASE_URL) as client:
        headers = {"Authorization": value.encode("latin-1")}
        answer = await client.post(
            "/api/ts/v1/oauth2/token", headers=headers, data={"grant_type": "client_credentials"}
        )
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("window", [(24, 1), (0, 25), (-1, 1), (0, 0), (10**400, 1)])
@pytest.mark.parametrize("name", ["downloadTimeWindowList", "installTimeWindowList"])
async def test_windows_that_are_no_hours_of_the_day(name, window):
    """A window is from 0 to 23 until 1 to 24, as the official SDK's model says; no other is taken."""
    world = World()
    body = CAMPAIGN_BODY | {name: [{"startTime": window[0], "endTime": window[1]}]}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(world), base_url=BASE_URL) as client:
        answer = await client.post(
            f"/api/fota/v2/campaigns/{ACCOUNT}", headers=world.credentials("bearer", "session"), json=body
        )
    assert (answer.status_code, answer.json().get("errorCode")) == (400, "INVALID_PARAMETER")


async def test_devices_of_a_distribution_type():
    """A list of devices holds only those of the type that was asked for."""
    world = World()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(world), base_url=BASE_URL) as client:
        answer = await client.get(
            f"/api/fota/v2/devices/{ACCOUNT}",
            headers=world.credentials("bearer", "session"),
            params={"distributionType": "OMA"},
        )
    assert answer.json()["deviceList"] == []
