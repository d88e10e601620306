import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from runbooks.pagerduty.account import account
from sandbox.errors import ArrakisError, Unreachable

CANARY = "u+canary-key-5521"
VARIABLES = {"PAGERDUTY_TOKEN": CANARY, "PAGERDUTY_FROM": "on-call@example.com"}
US, EU = "https://api.pagerduty.com", "https://api.eu.pagerduty.com"


def test_without_a_key_there_is_no_account() -> None:
    assert account({}, {}) is None
    assert account({"from": "a@example.com", "service_region": "eu"}, {"PAGERDUTY_TOKEN": " "}) is None


def test_the_key_is_not_in_what_is_printed() -> None:
    found = account({}, VARIABLES)
    assert found
    assert found.token == CANARY
    assert CANARY not in f"{found} {found!r} {[found]}"
    assert (found.sender, found.url, found.timeout) == ("on-call@example.com", US, 10.0)


def test_variables_override_the_file() -> None:
    file = {"from": "file@example.com", "service_region": "eu"}
    assert _url(file, {}) == EU
    found = account(file, {**VARIABLES, "PAGERDUTY_URL": US})
    assert found
    assert (found.sender, found.url) == ("on-call@example.com", US)
    found = account(file, {"PAGERDUTY_TOKEN": CANARY})
    assert found
    assert found.sender == "file@example.com"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (US, US),
        (f"{US}/", US),
        (f"{US}:443", f"{US}:443"),
        (EU, EU),
        ("https://127.0.0.1:8443", "https://127.0.0.1:8443"),
        ("https://localhost:8443/", "https://localhost:8443"),
    ],
)
def test_these_addresses_get_the_key(given: str, taken: str) -> None:
    assert _url({}, {"PAGERDUTY_URL": given}) == taken


@pytest.mark.parametrize(
    "given",
    [
        "http://api.pagerduty.com",
        "http://127.0.0.1:8443",
        "https://api.pagerduty.com.evil.test",
        "https://api.pagerduty.com.evil.test/https://api.pagerduty.com",
        "https://api.pagerduty.com@evil.test",
        "https://evil.test/api.pagerduty.com",
        "https://evil.test#https://api.pagerduty.com",
        "https://user:word@api.pagerduty.com",
        "https://api.pagerduty.com\\@evil.test",
        "https://api.pagerduty.com\\.evil.test",
        "https://api.pagerduty.com:8443",
        "https://api.pagerduty.com:99999",
        "https://api.pagerduty.com/v2",
        "https://api.pagerduty.com?x=1",
        "https://api.pagerduty.com.",
        "https://аpi.pagerduty.com",
        "https://xapi.pagerduty.com",
        "https://events.pagerduty.com",
        "https://127.0.0.1.evil.test",
        "https://[::1]:8443",
        "api.pagerduty.com",
        "https://",
        "https://[",
        "https://api.pagerduty.com\nx",
    ],
)
def test_no_other_address_gets_the_key(given: str) -> None:
    with pytest.raises(ArrakisError, match="not PagerDuty's") as caught:
        account({}, {**VARIABLES, "PAGERDUTY_URL": given})
    assert CANARY not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("token", ["two words", "line\r\nX-Other: 1", "schlüssel"])
def test_a_malformed_key_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ArrakisError, match="malformed") as caught:
        account({}, {**VARIABLES, "PAGERDUTY_TOKEN": token})
    assert token not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("sender", ["", "somebody", "a@b\r\nX-Other: 1", "a b@example.com"])
def test_who_writes_must_be_an_address(sender: str) -> None:
    with pytest.raises(ArrakisError, match="PAGERDUTY_FROM") as caught:
        account({}, {"PAGERDUTY_TOKEN": CANARY, "PAGERDUTY_FROM": sender})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"tokn": {"secret": "x"}}, "tokn"),
        ({"token": CANARY}, "does not name a secret"),
        ({"token": {"secret": 1}}, "does not name a secret"),
        ({"service_region": "asia"}, "neither us nor eu"),
        ({"service_region": ["us"]}, "neither us nor eu"),
    ],
)
def test_the_file_is_read_closely(table: Mapping[str, Any], said: str) -> None:
    variables = {} if "token" in table else VARIABLES
    with pytest.raises(ArrakisError, match=said) as caught:
        account(table, variables)
    assert CANARY not in f"{caught.value} {caught.value.hint}"


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A keeper of secrets that says the one in here."""
    kept: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found = asked["SecretId"] == kept.get("name")
            answer = (
                {"SecretString": kept.get("secret")} if found else {"__type": "ResourceNotFoundException"}
            )
            data = json.dumps(answer).encode()
            self.send_response(200 if found else 400)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        yield kept
        server.shutdown()
        serving.join()


def test_the_key_is_kept_as_a_secret(keeper: dict[str, Any]) -> None:
    keeper.update(name="arrakis/pagerduty", secret=json.dumps({"token": CANARY}))
    table = {"token": {"secret": "arrakis/pagerduty"}, "from": "on-call@example.com"}
    found = account(table, {}, "eu-central-1")
    assert found
    assert found.token == CANARY
    overridden = account(table, {"PAGERDUTY_TOKEN": "u+other"}, "eu-central-1")
    assert overridden
    assert overridden.token == "u+other"


@pytest.mark.parametrize("secret", [CANARY, json.dumps({"tokn": CANARY}), json.dumps([CANARY]), "{"])
def test_a_secret_of_another_form_is_not_repeated(keeper: dict[str, Any], secret: str) -> None:
    keeper.update(name="arrakis/pagerduty", secret=secret)
    with pytest.raises(ArrakisError, match="no `token` member") as caught:
        account({"token": {"secret": "arrakis/pagerduty"}}, {}, "eu-central-1")
    assert CANARY not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"
    assert "PAGERDUTY_TOKEN" in caught.value.hint


def test_a_keeper_that_is_down_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(Unreachable) as caught:
        account({"token": {"secret": "arrakis/pagerduty"}}, {}, "eu-central-1")
    assert "PAGERDUTY_TOKEN" in caught.value.hint


def _url(table: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    found = account(table, {**VARIABLES, **variables})
    assert found
    return found.url
