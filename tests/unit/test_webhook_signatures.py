"""Who sent it: signatures, shared secrets, and the settings that hold them."""

import pytest

from runbooks.pagerduty.webhook.settings import Settings, resolve
from runbooks.pagerduty.webhook.signatures import known, signed
from sandbox.errors import ArrakisError
from tests.unit.webhooks import OLD_SECRET, SECRET, TOPIC, signature

BODY = b'{"event":{"id":"1"}}'
NEW = "a-secret-that-is-long-enough"


def test_a_signature_is_that_of_rfc_4231() -> None:
    """Its test case 2, so that it is not only our own arithmetic that agrees with itself."""
    digest = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signed(f"v1={digest}", b"what do ya want for nothing?", ["Jefe"])


@pytest.mark.parametrize(
    "header",
    [
        signature(BODY),
        signature(BODY, OLD_SECRET),
        f"v1={'0' * 64},{signature(BODY)}",
        f"v1={'0' * 64} ,\t {signature(BODY)} ",
        f"v2=abc, {signature(BODY)}",
    ],
)
def test_any_signature_with_any_secret_will_do(header: str) -> None:
    assert signed(header, BODY, (SECRET, OLD_SECRET))


@pytest.mark.parametrize(
    "header",
    [
        "",
        ",",
        "v1=",
        signature(BODY)[3:],
        signature(BODY).replace("v1", "v0"),
        signature(BODY)[:-1],
        signature(BODY) + "0",
        signature(BODY).upper(),
        signature(BODY + b" "),
        signature(BODY, "another-secret-altogether"),
        "v1=" + "\xff" * 64,
        "v1=" + "🦀" * 64,
        ",".join(["v1=0"] * 16 + [signature(BODY)]),
    ],
)
def test_any_other_header_will_not(header: str) -> None:
    assert not signed(header, BODY, (SECRET, OLD_SECRET))


def test_with_no_secret_nothing_is_signed() -> None:
    assert not signed(signature(BODY, ""), BODY, ())
    assert not known("", ())


def test_a_shared_secret_is_known_whole() -> None:
    assert known(SECRET, (OLD_SECRET, SECRET))
    for header in ("", SECRET[:-1], SECRET + "x", SECRET.upper(), "\xff", "🦀", f"{SECRET},{SECRET}"):
        assert not known(header, (OLD_SECRET, SECRET))


def _nothing_kept(name: str) -> str:
    raise AssertionError(name)


def test_the_variables_name_several_secrets_a_source() -> None:
    found = resolve(
        {
            "WEBHOOK_PAGERDUTY_SECRETS": f"{SECRET}, {OLD_SECRET},",
            "WEBHOOK_ACTION_SECRETS": NEW,
            "WEBHOOK_TOPICS": f"{TOPIC}=1,{TOPIC}-2 , {TOPIC}-3=2",
        },
        secret=_nothing_kept,
    )
    assert found == Settings(
        pagerduty=(SECRET, OLD_SECRET),
        action=(NEW,),
        topics={TOPIC: "1", f"{TOPIC}-2": "2", f"{TOPIC}-3": "2"},
    )


def test_a_secret_of_secrets_manager_is_added_to_them() -> None:
    kept = f'{{"pagerduty": ["{SECRET}", "{NEW}"], "events": ["{OLD_SECRET}"]}}'
    asked: list[str] = []

    def secret(name: str) -> str:
        asked.append(name)
        return kept

    found = resolve({"WEBHOOK_SECRET": "arrakis/webhook", "WEBHOOK_PAGERDUTY_SECRETS": SECRET}, secret=secret)
    assert asked == ["arrakis/webhook"]
    assert (found.pagerduty, found.action, found.events) == ((SECRET, NEW), (), (OLD_SECRET,))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "knows nobody"),
        ({"WEBHOOK_PAGERDUTY_SECRETS": " , "}, "knows nobody"),
        ({"WEBHOOK_PAGERDUTY_SECRETS": "canary"}, "WEBHOOK_PAGERDUTY_SECRETS"),
        ({"WEBHOOK_ACTION_SECRETS": f"{NEW},canary in two words"}, "WEBHOOK_ACTION_SECRETS"),
        ({"WEBHOOK_EVENT_SECRETS": "canäry-with-an-umlaut"}, "WEBHOOK_EVENT_SECRETS"),
        ({"WEBHOOK_TOPICS": f"{TOPIC},canary"}, "entry 2 of WEBHOOK_TOPICS"),
        ({"WEBHOOK_TOPICS": f"{TOPIC}=3"}, "entry 1 of WEBHOOK_TOPICS"),
        ({"WEBHOOK_TOPICS": f"{TOPIC}/../x"}, "entry 1 of WEBHOOK_TOPICS"),
        ({"WEBHOOK_TOPICS": "arn:aws:sns:s3.evil:123456789012:x"}, "entry 1 of WEBHOOK_TOPICS"),
    ],
)
def test_settings_that_would_not_work_are_refused_without_their_values(
    variables: dict[str, str], said: str
) -> None:
    with pytest.raises(ArrakisError, match=said) as caught:
        resolve(variables, secret=_nothing_kept)
    assert caught.value.hint
    assert "canary" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize(
    "kept",
    [
        "canary",
        '["canary"]',
        '{"pagerduty": "canary"}',
        '{"pagerduty": [7]}',
        '{"canary": []}',
        '{"action": ["canary"]}',
    ],
)
def test_a_secret_of_another_form_is_refused_without_its_value(kept: str) -> None:
    with pytest.raises(ArrakisError, match="secret arrakis/webhook") as caught:
        resolve({"WEBHOOK_SECRET": "arrakis/webhook"}, secret=lambda _: kept)
    assert "canary" not in f"{caught.value}{caught.value.__cause__}"


def test_settings_do_not_print_what_they_hold() -> None:
    settings = Settings(pagerduty=(SECRET,), action=(NEW,), events=(OLD_SECRET,), topics={TOPIC: "2"})
    assert TOPIC in repr(settings)
    assert not any(secret in repr(settings) for secret in (SECRET, NEW, OLD_SECRET))
