"""Credentials appear in nothing that is printed or kept, whatever they look like, and whoever repeats them; and who may read what is kept."""

import os
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import pytest
import redis
from invoke.exceptions import Exit as Stop

from lab.control import Lab
from runbooks import rb_sb_003
from runbooks.engine.environment import FOLDER, resolve
from runbooks.engine.errors import Exit
from runbooks.engine.operate import Operator
from runbooks.overview import Overview
from runbooks.screen import calmly
from sandbox.adapters.postgres import Postgres
from tests.acceptance.engineer import Answer, Engineer
from tests.acceptance.program import ROOT
from tests.integration.crowd import fill
from tests.integration.world import World
from tests.proof.proxy import Fault, Kind, Proxy, standing_before

ODD = ("", "p@", "p/", "p:", "p?", "p#", "12#", "x@y/", "p%zz", "p[", "x@[", "p&", "p'", 'p"', "p\\", "p;", "p,", "p+", "p$(id)", "p`id`", "p{0}", "p%s", "p é", "p\u202e", "p=")  # fmt: skip
VARIABLES = ("DATABASE_URL", "REDIS_URL", "NATS_URL")
TOKENS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "PAGERDUTY_TOKEN",
    "WEBHOOK_SECRET",
)
SETS = len(ODD)
COUNT = SETS * (len(VARIABLES) + len(TOKENS))
TASKS = (("audit",), ("audit", "--json"), ("rb-sb-003", "--apply", "--yes", "--max-targets", "9"))


def canary(number: int, variable: str) -> str:
    """Return what is looked for: a part of a credential that nothing else has in it."""
    return f"canary{number:02d}{variable.replace('_', '').lower()}end"


def canaries(number: int) -> list[str]:
    return [canary(number, variable) for variable in (*VARIABLES, *TOKENS)]


def with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    user = parts.username or ("" if parts.scheme == "redis" else "chani")
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}"))


def credentials(urls: Mapping[str, str], number: int, *, raw: bool) -> dict[str, str]:
    """Return variables full of canaries beside the odd characters of this number, as they are or percent-encoded."""
    found = {}
    for variable in VARIABLES:
        password = ODD[number] + canary(number, variable)
        found[variable] = with_password(urls[variable], password if raw else quote(password, safe=""))
    return found | {variable: canary(number, variable) for variable in TOKENS}


def leaks(text: str, number: int) -> list[str]:
    """Return the canaries in a text, the encoded ones too: the odd characters stand before what is looked for."""
    return [each for each in canaries(number) if each in text]


def assert_kept_to_itself(answers: list[Answer], folder: Path, number: int) -> None:
    for answer in answers:
        assert "Traceback" not in answer.said
        assert not leaks(answer.said, number), answer.said
    for path in folder.rglob("*"):
        assert not leaks(path.name, number)
        if path.is_file():
            assert not leaks(path.read_text(errors="replace"), number), path


@pytest.fixture
def orphans(grounds: Lab, world: World) -> Iterator[None]:
    world.wipe()
    fill(grounds.env, strangers=2, keys=2)
    yield
    world.wipe()


@contextmanager
def admitted(lab: Lab, number: int) -> Iterator[None]:
    """Have Redis take this number's password; the lab's others take any."""
    password = ODD[number] + canary(number, "REDIS_URL")
    with redis.Redis.from_url(lab.env["REDIS_URL"]) as client:
        client.execute_command("ACL", "SETUSER", "default", f">{password}")
        try:
            yield
        finally:
            client.execute_command("ACL", "SETUSER", "default", f"<{password}", "nopass")


def quoting(variable: str, number: int) -> Fault:
    """Return a stranger in a server's place who repeats the credentials."""
    password = ODD[number] + canary(number, variable)
    told = (password if variable in VARIABLES else canary(number, "AWS_SECRET_ACCESS_KEY")).encode()
    body = b"SFATAL\0VFATAL\0C28P01\0M%b is no password\0\0" % told
    said = {
        "DATABASE_URL": b"E" + (len(body) + 4).to_bytes(4) + body,
        "REDIS_URL": b"-WRONGPASS %b is no password\r\n" % told * 5,
        "NATS_URL": b"-ERR 'Authorization Violation: %b'\r\n" % told,
        "AWS_ENDPOINT_URL": _forbidden(b'{"__type":"Other","message":"%b is no key"}' % told),
    }
    return Fault(kind=Kind.STRANGER, said=said[variable])


def _forbidden(body: bytes) -> bytes:
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def called(lab: Lab, state: Path, variables: Mapping[str, str], *words: str) -> Answer:
    return Engineer(lab, state).but(**variables).call(*words, "--timeout", "3")


def dead(url: str) -> str:
    return urlunsplit(urlsplit(url)._replace(netloc="127.0.0.1:1"))


def check(lab: Lab, state: Path, number: int, ways: tuple[str, ...]) -> None:
    """Call every task with servers that work, are dead, or repeat what they were sent; and with passwords as they are."""
    with ExitStack() as stack:
        strangers = {
            name: stack.enter_context(standing_before(lab.env[name]))
            for name in (*VARIABLES, "AWS_ENDPOINT_URL")
        }
        for name, proxy in strangers.items():
            proxy.fault = quoting(name, number)
        variables = {
            "working": credentials(lab.env, number, raw=False),
            "dead": credentials({name: dead(lab.env[name]) for name in VARIABLES}, number, raw=False),
            "quoting": credentials(_urls(strangers), number, raw=False)
            | {"AWS_ENDPOINT_URL": strangers["AWS_ENDPOINT_URL"].url},
            "raw": credentials(lab.env, number, raw=True),
        }
        for way in ways:
            answers = [called(lab, state / way, variables[way], *words) for words in TASKS]
            if way == "working":
                assert [answer.code for answer in answers][2] == 0, answers[2].said
            assert_kept_to_itself(answers, state, number)


def _urls(proxies: Mapping[str, Proxy]) -> dict[str, str]:
    return {name: proxy.url for name, proxy in proxies.items()}


@pytest.mark.soak
@pytest.mark.parametrize("number", range(SETS))
def test_two_hundred_canaries_are_seen_nowhere(
    grounds: Lab, orphans: None, tmp_path: Path, number: int
) -> None:
    assert COUNT == 200
    with admitted(grounds, number):
        check(grounds, tmp_path, number, ("working", "dead", "quoting", "raw"))


def test_credentials_that_work_are_kept_nowhere(grounds: Lab, orphans: None, tmp_path: Path) -> None:
    with admitted(grounds, 1):
        report = ("--report", str(tmp_path / "report"))
        answer = called(
            grounds, tmp_path / "state", credentials(grounds.env, 1, raw=False), *TASKS[2], *report
        )
    assert answer.code == 0, answer.said
    assert_kept_to_itself([answer], tmp_path, 1)
    assert list((tmp_path / "report").iterdir())


def test_credentials_that_servers_repeat_are_not_told(grounds: Lab, tmp_path: Path) -> None:
    with ExitStack() as stack:
        strangers = {
            name: stack.enter_context(standing_before(grounds.env[name]))
            for name in (*VARIABLES, "AWS_ENDPOINT_URL")
        }
        for name, proxy in strangers.items():
            proxy.fault = quoting(name, 2)
        variables = credentials(_urls(strangers), 2, raw=False) | {
            "AWS_ENDPOINT_URL": strangers["AWS_ENDPOINT_URL"].url
        }
        answer = called(grounds, tmp_path, variables, "rb-sb-003")
    assert answer.code == 3, answer.said
    assert "*** is no password" in answer.said
    assert "*** is no key" in answer.said
    assert_kept_to_itself([answer], tmp_path, 2)


def test_malformed_addresses_are_not_repeated(grounds: Lab, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as hands:
        numbers = (5, 7, 10)
        answers = hands.map(
            lambda n: called(grounds, tmp_path, credentials(grounds.env, n, raw=True), "rb-sb-003"), numbers
        )
        for number, answer in zip(numbers, answers, strict=True):
            assert answer.code == 1, answer.said
            assert "malformed" in answer.err
            assert_kept_to_itself([answer], tmp_path, number)


def test_a_fault_of_ours_is_kept_without_what_it_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOKS_STATE_DIR", str(tmp_path / "state"))
    password = canary(3, "DATABASE_URL")
    Postgres(f"postgresql://chani:{password}@127.0.0.1:1/none", tag="tests")

    def broken() -> int:
        raise ValueError(f"cannot read {password}")

    before = os.umask(0)
    try:
        with pytest.raises(Stop):
            calmly(broken)
    finally:
        os.umask(before)
    log = tmp_path / "state" / "debug.log"
    assert "ValueError: cannot read ***" in log.read_text()
    assert modes(log.parent) == {log.parent: 0o700, log: 0o600}


def modes(folder: Path) -> dict[Path, int]:
    """Return who may do what with a folder and all in it."""
    return {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


def test_nobody_else_may_read_what_is_kept_whatever_the_umask(
    grounds: Lab, orphans: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    for name, value in {**grounds.env, "RUNBOOKS_STATE_DIR": str(state)}.items():
        monkeypatch.setenv(name, value)
    before = os.umask(0)
    try:
        apply(state)
        with pytest.raises(Stop):
            Overview("audit", env="", json=False).audit(only="rb-sb-003", since="last", fail_on="warning")
    finally:
        os.umask(before)
    found = modes(state)
    assert {"journal.jsonl", "plans", "audits"} <= {path.name for path in found}
    assert len(found) > 7
    assert {path: mode for path, mode in found.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}


def apply(state: Path) -> None:
    """Plan, and apply the plan."""
    environment = resolve(None, os.environ, FOLDER, state)
    operator = Operator(environment, timeout=5, progress=lambda *_: None, tell=lambda _: None)
    plan = operator.diagnose(rb_sb_003.RUNBOOK).plan
    assert plan is not None
    outcome = operator.apply(plan, rb_sb_003.RUNBOOK, ask=lambda *_: None, max_targets=9)
    assert outcome.exit is Exit.HEALTHY


def test_no_program_is_started_that_could_be_given_a_secret() -> None:
    starting = ("subprocess", "os.system", "os.popen", "os.spawn", "os.posix_spawn", "os.fork")
    for house in ("runbooks", "sandbox", "diagnostics", "sql"):
        for path in (ROOT / house).rglob("*.py"):
            assert not [word for word in starting if word in path.read_text()], path
