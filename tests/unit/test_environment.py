"""What an environment's file says, and what is refused of it."""

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from diagnostics.stack import Stack
from runbooks.engine import environment
from runbooks.engine.environment import (
    Environment,
    command,
    names,
    naming,
    prefixes,
    resolve,
    settings_of,
    state_folder,
)
from sandbox.adapters import aws
from sandbox.errors import ArrakisError, Unreachable

ROOT = Path(__file__).resolve().parents[2]
URLS = {
    "DATABASE_URL": "postgresql://db.example:5432/app",
    "REDIS_URL": "redis://redis.example:6379/0",
    "NATS_URL": "nats://nats.example:4222",
}


def stack_of(tmp_path: Path, text: str) -> Stack:
    """Return the stack that an environment's file describes."""
    (tmp_path / "sietch.toml").write_text(text, encoding="utf-8")
    return resolve("sietch", URLS, tmp_path, tmp_path).stack


def test_without_a_file_the_runbook_pages_own_names_hold(tmp_path: Path) -> None:
    assert resolve(None, URLS, tmp_path, tmp_path).stack == Stack()
    assert stack_of(tmp_path, "") == Stack()


def test_what_is_named_is_taken_and_the_rest_stays(tmp_path: Path) -> None:
    found = stack_of(tmp_path, '[stack]\ncluster = "sietch"\ncache = "spice"\nescalation = "Leto"\n')
    assert found == Stack(cluster="sietch", cache="spice", escalation="Leto")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[stack]\nclutser = "x"', "one of cluster"),
        ('[stack]\nzzz = "x"', "one of alarm_prefix, cleanup_logs"),
        ('[stack]\nCleanup-LOGS = "x"', "one of cleanup_logs"),
        ("[stack]\ncluster = 7", 'write it as cluster = "…"'),
        ('[stack]\nstream_replicas = "3"', "write it as stream_replicas = 3"),
        ("[stack]\nstream_replicas = true", "write it as stream_replicas = 3"),
        ('alarm_prefix = "arrakis-"', "move it there"),
        ('stack = "x"', 'write [stack], then cluster = "…"'),
    ],
)
def test_a_name_that_there_is_not_is_refused_with_the_near_one(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ArrakisError) as refused:
        stack_of(tmp_path, text)
    assert said in refused.value.hint
    assert "environments/sietch.toml" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cluster = 7", "cluster under [stack] in environments/sietch.toml is no name in quotes"),
        (
            'stream_replicas = "3"',
            "stream_replicas under [stack] in environments/sietch.toml is no whole number",
        ),
    ],
)
def test_what_is_of_the_wrong_kind_is_told_with_the_right_one(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ArrakisError, match=re.escape(told)):
        stack_of(tmp_path, f"[stack]\n{text}")


def test_a_file_is_utf_8_whatever_this_host_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def reading(path: Path, encoding: str | None = None) -> str:
        assert encoding == "utf-8"
        return read(path, encoding)

    monkeypatch.setattr(Path, "read_text", reading)
    assert stack_of(tmp_path, '[stack]\nescalation = "žluťoučký"').escalation == "žluťoučký"


@pytest.mark.parametrize("name", ["production", "staging"])
def test_the_deployed_environments_name_all_but_whom_to_call(name: str) -> None:
    found = resolve(name, URLS, ROOT / "environments", Path()).stack
    named = {each.name for each in fields(Stack) if getattr(found, each.name) != getattr(Stack(), each.name)}
    assert named == {each.name for each in fields(Stack)} - {
        "escalation",
        "database_role",
        "journal_log_group",
    }
    assert all(f"arrakis-{name}" in getattr(found, each) for each in named - {"stream_replicas"})


# Which one is meant

ADDRESSES = "".join(f'{name.lower()} = "{url}"\n' for name, url in URLS.items())
ENVIRONMENT = Environment(name="sietch", database_url="", redis_url="", nats_url="")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two environments: `sietch`, which confirms by typing, and `tabr`, which only asks."""
    more = '[stack]\ncluster = "c"\nalarm_prefix = "arrakis-sietch-"\n'
    (tmp_path / "sietch.toml").write_text(f'region = "eu-1"\naccount = "12"\n{ADDRESSES}{more}')
    (tmp_path / "tabr.toml").write_text(f'confirm = "ask"\n{ADDRESSES}')
    return tmp_path


def resolved(folder: Path, option: str | None = None, **variables: str) -> Environment:
    return resolve(option, variables, folder, Path("/state"))


def test_a_named_one_is_what_its_file_says(folder: Path) -> None:
    expected = Environment(
        name="sietch",
        database_url=URLS["DATABASE_URL"],
        redis_url=URLS["REDIS_URL"],
        nats_url=URLS["NATS_URL"],
        nats_tls_ca=None,
        stack=Stack(cluster="c", alarm_prefix="arrakis-sietch-"),
        region="eu-1",
        account="12",
        typed=True,
        state=Path("/state/sietch"),
    )
    assert resolved(folder, "sietch") == expected
    assert resolved(folder, ARRAKIS_ENV="sietch") == expected
    assert resolved(folder, "sietch", ARRAKIS_ENV="tabr") == expected
    assert resolved(folder, "sietch", NATS_TLS_CA="/ca.pem") == replace(expected, nats_tls_ca="/ca.pem")


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({}, "eu-1"),
        ({"AWS_DEFAULT_REGION": "us-2"}, "us-2"),
        ({"AWS_REGION": "us-1", "AWS_DEFAULT_REGION": "us-2"}, "us-1"),
    ],
)
def test_a_variable_names_another_region(folder: Path, variables: dict[str, str], region: str) -> None:
    assert resolved(folder, "sietch", **variables).region == region


@pytest.mark.parametrize("variable", URLS)
def test_a_variable_points_elsewhere_and_then_the_name_is_typed(folder: Path, variable: str) -> None:
    found = resolved(folder, "tabr", **{variable: "x://elsewhere:1"})
    assert getattr(found, variable.lower()) == "x://elsewhere:1"
    assert found.typed
    assert not resolved(folder, "tabr").typed


def test_variables_alone_describe_one(folder: Path) -> None:
    found = resolved(folder, **URLS)
    assert (found.name, found.typed, found.lab, found.region, found.account) == (
        "custom",
        True,
        False,
        None,
        None,
    )
    assert resolved(folder, "lab", **URLS).lab


def test_where_none_is_named_those_that_there_are_are_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArrakisError, match="no environment is named") as error:
        resolved(folder, REDIS_URL="redis://x")
    assert error.value.hint == "--env NAME (sietch, tabr), or try `invoke lab rb-sb-003`"
    with pytest.raises(ArrakisError) as error:
        resolved(tmp_path / "none")
    assert error.value.hint.startswith("--env NAME (none is set up)")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Sietsch", "did you mean sietch?"),
        ("zzz", "there are: sietch, tabr"),
        ("../../etc/passwd", "there are: sietch, tabr"),
    ],
)
def test_one_that_there_is_not_is_refused_with_the_near_one(folder: Path, name: str, hint: str) -> None:
    with pytest.raises(ArrakisError, match=f"no environment {name!r}") as error:
        resolved(folder, name)
    assert error.value.hint == hint


def test_no_name_leads_out_of_the_folder(folder: Path) -> None:
    assert settings_of("../../sietch", folder)["account"] == "12"


@pytest.mark.parametrize("text", [b"x = [", b"\xff\xfe"])
def test_what_is_no_toml_is_said_so(folder: Path, text: bytes) -> None:
    (folder / "sietch.toml").write_bytes(text)
    with pytest.raises(ArrakisError, match=r"sietch\.toml is not TOML"):
        resolved(folder, "sietch")


def test_files_are_named_and_so_is_how_their_alarms_begin(folder: Path) -> None:
    (folder / "broken.toml").write_text("x = [")
    (folder / "note.txt").write_text("")
    assert names(folder) == ["broken", "sietch", "tabr"]
    assert prefixes(folder) == {"sietch": "arrakis-sietch-"}


# Addresses


@pytest.mark.parametrize(
    ("variable", "value", "well"),
    [
        ("DATABASE_URL", "postgresql://u@h/db", True),
        ("DATABASE_URL", "postgresql://u@h:5432/db", True),
        ("DATABASE_URL", "postgresql://u@h:0/db", True),
        ("DATABASE_URL", "h:5432", False),
        ("DATABASE_URL", "//h:5432", False),
        ("DATABASE_URL", "postgresql:///db", False),
        ("DATABASE_URL", "postgresql://h:port/db", False),
        ("DATABASE_URL", "postgresql://h:99999/db", False),
        ("DATABASE_URL", "postgresql://[::1/db", False),
        ("REDIS_URL", "redis://h:1,redis://h:2", False),
        ("NATS_URL", "nats://h:1,nats://h:2", True),
        ("NATS_URL", "h:1,nats://h:2", False),
    ],
)
def test_an_address_has_a_scheme_and_a_host(tmp_path: Path, variable: str, value: str, well: bool) -> None:
    variables = {**URLS, variable: value}
    if well:
        assert getattr(resolved(tmp_path, **variables), variable.lower()) == value
        return
    with pytest.raises(ArrakisError, match=f"{variable} is malformed") as error:
        resolved(tmp_path, **variables)
    assert value not in str(error.value)


@pytest.mark.parametrize("value", ["", "7", "[]", '{ name = "x" }'])
def test_an_address_that_is_none_is_not_set(folder: Path, value: str) -> None:
    lines = ADDRESSES.splitlines()
    (folder / "tabr.toml").write_text(
        "\n".join([*lines[:1], f"redis_url = {value}" if value else "", lines[2]])
    )
    with pytest.raises(ArrakisError, match="REDIS_URL is not set") as error:
        resolved(folder, "tabr")
    assert "name redis_url in" in error.value.hint


class Keeper:
    """Secrets Manager. What is asked of it is kept."""

    said: Mapping[str, Any] | Exception
    asked: list[tuple[Any, ...]]

    def __init__(self, *, region: str | None) -> None:
        self.region = region

    def read(self, service: str, operation: str, /, **params: object) -> Mapping[str, Any]:
        self.asked.append((self.region, service, operation, params))
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch, folder: Path) -> type[Keeper]:
    monkeypatch.setattr(aws, "Aws", Keeper)
    Keeper.asked = []
    text = ADDRESSES.replace(f'"{URLS["DATABASE_URL"]}"', '{ secret = "sietch/database" }')
    (folder / "sietch.toml").write_text(f'region = "eu-1"\n{text}')
    return Keeper


def test_an_address_may_be_a_secret_in_the_environments_own_region(
    folder: Path, keeper: type[Keeper]
) -> None:
    keeper.said = {"SecretString": '{"url": "postgresql://u:p@h/db"}'}
    assert resolved(folder, "sietch").database_url == "postgresql://u:p@h/db"
    assert keeper.asked == [("eu-1", "secretsmanager", "get_secret_value", {"SecretId": "sietch/database"})]
    assert resolved(folder, "sietch", **URLS).database_url == URLS["DATABASE_URL"]
    assert len(keeper.asked) == 1


@pytest.mark.parametrize(
    "said",
    [
        {"SecretString": "not JSON"},
        {"SecretString": "{}"},
        {"SecretString": "[]"},
        {},
        {"SecretString": None},
    ],
)
def test_a_secret_without_an_address_is_said_so_and_not_shown(
    folder: Path, keeper: type[Keeper], said: dict[str, Any]
) -> None:
    keeper.said = said
    with pytest.raises(ArrakisError, match="secret sietch/database has no `url` member") as error:
        resolved(folder, "sietch")
    assert error.value.hint.endswith("; or set DATABASE_URL yourself")


def test_a_keeper_who_does_not_answer_can_be_done_without(folder: Path, keeper: type[Keeper]) -> None:
    keeper.said = Unreachable("no answer", hint="wait")
    with pytest.raises(Unreachable, match="no answer") as error:
        resolved(folder, "sietch")
    assert error.value.hint == "wait; or set DATABASE_URL yourself"


# Whether its name is typed

LOCAL = {
    "DATABASE_URL": "postgresql://u@127.0.0.1:1/x",
    "REDIS_URL": "redis://localhost:2",
    "NATS_URL": "nats://[::1]:3,nats://127.0.0.1:4",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:5",
}


@pytest.mark.parametrize(
    ("changes", "typed"),
    [
        ({}, False),
        ({"AWS_ENDPOINT_URL": ""}, True),  # a tunnel has the real AWS
        ({"AWS_ENDPOINT_URL": "http://aws.example"}, True),
        ({"DATABASE_URL": "postgresql://u@db.example/x"}, True),
        ({"REDIS_URL": "redis://redis.example"}, True),
        ({"NATS_URL": "nats://127.0.0.1:4,nats://nats.example:4"}, True),
        ({"NATS_URL": "nats://127.0.0.1:4,"}, False),
    ],
)
def test_only_a_stand_in_on_this_machine_needs_no_name_typed(
    tmp_path: Path, changes: dict[str, str], typed: bool
) -> None:
    variables = {name: value for name, value in {**LOCAL, **changes}.items() if value}
    assert resolved(tmp_path, **variables).typed is typed


@pytest.mark.parametrize(
    ("confirm", "typed"), [('confirm = "typed"', True), ('confirm = "ask"', False), ("", True)]
)
def test_a_file_says_whether_its_name_is_typed(folder: Path, confirm: str, typed: bool) -> None:
    (folder / "sietch.toml").write_text(f"{confirm}\n{ADDRESSES}")
    assert resolved(folder, "sietch").typed is typed


# The commands that are printed


def test_a_printed_command_names_what_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNBOOKS_COMMAND", raising=False)
    monkeypatch.delenv("ARRAKIS_ENV", raising=False)
    lab, custom = replace(ENVIRONMENT, name="lab"), replace(ENVIRONMENT, name="custom")
    assert (command(), command(ENVIRONMENT), command(lab)) == ("invoke", "invoke", "invoke lab")
    assert (naming(ENVIRONMENT), naming(lab), naming(custom)) == (" --env sietch", "", "")
    monkeypatch.setenv("ARRAKIS_ENV", "sietch")
    assert naming(ENVIRONMENT) == ""
    assert naming(replace(ENVIRONMENT, name="tabr")) == " --env tabr"
    monkeypatch.setenv("RUNBOOKS_COMMAND", "./inv")
    assert command(lab) == "./inv lab"


def test_the_state_is_kept_where_a_variable_says_or_where_the_system_keeps_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/home/chani/.state")
    assert state_folder({"RUNBOOKS_STATE_DIR": "/state"}) == Path("/state")
    assert state_folder({}).name == "arrakis-runbooks"


def test_an_environment_is_typed_in_production_unless_it_is_said_otherwise() -> None:
    expected = Environment(
        name="sietch", database_url="", redis_url="", nats_url="", nats_tls_ca=None, stack=Stack(), region=None,
        account=None, typed=True, state=Path(),
    )  # fmt: skip
    assert expected == ENVIRONMENT
    assert ROOT / "environments" == environment.FOLDER
