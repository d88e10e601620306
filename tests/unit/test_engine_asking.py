"""Every system is asked by itself; what one says, another does not, and a third cannot tell is put together."""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from diagnostics.privileges import Held
from runbooks.engine import permission
from runbooks.engine.environment import Environment
from runbooks.engine.model import Runbook, Severity
from runbooks.engine.page import Page, Rights
from runbooks.engine.permission import Permission, ask, unseen
from runbooks.engine.systems import Asking
from sandbox.errors import Denied, Unreachable
from sandbox.facts import gather

ENVIRONMENT = Environment(
    name="x", database_url="p", redis_url="r", nats_url="n", nats_tls_ca="ca", region="eu-1"
)
ALL = Rights(
    postgres=frozenset({"p1", "p2"}),
    redis=frozenset({"r1", "r2"}),
    nats=frozenset({"n1", "n2"}),
    aws=frozenset({"a1", "a2"}),
)


class Answers:
    """What each system answers, in the place of the functions that ask it; and what they were asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: dict[str, Held | Exception] = {}
        self.asked: dict[str, tuple[Any, ...]] = {}
        for name in ("postgres", "redis", "nats", "aws"):
            monkeypatch.setattr(permission, f"_of_{name}", self._of(name))

    def _of(self, name: str) -> Any:
        def answer(*asked: object) -> Held:
            self.asked[name] = asked
            held = self.held[name]
            if isinstance(held, Exception):
                raise held
            return held

        return answer


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(monkeypatch)


READ: Any = SimpleNamespace(ask=Asking())


def asked(rights: Rights) -> Permission:
    return ask(ENVIRONMENT, READ, rights, timeout=9)


def test_what_all_have_is_not_lacking(answers: Answers) -> None:
    answers.held = {
        "postgres": {"p1": True},
        "redis": {"r1": True, "r2": True},
        "nats": {},
        "aws": {"a1": True},
    }
    assert asked(ALL) == Permission(lacking={}, untold={})
    assert answers.asked == {
        "postgres": (READ, ALL.postgres),
        "redis": (ENVIRONMENT, ALL.redis, 9),
        "nats": (ENVIRONMENT, ALL.nats, 9),
        "aws": (ENVIRONMENT, READ, ALL.aws, 9),
    }


def test_a_system_is_not_asked_about_nothing(answers: Answers) -> None:
    answers.held = {"redis": {"r1": True}}
    assert asked(Rights(redis=frozenset({"r1"}))) == Permission(lacking={}, untold={})
    assert list(answers.asked) == ["redis"]


def test_what_is_lacking_is_told_from_what_cannot_be_told(answers: Answers) -> None:
    answers.held = {
        "postgres": {"p2": False, "p1": False, "p3": True},
        "redis": {"r1": None, "r2": False, "r0": None},
        "nats": Unreachable("no answer"),
        "aws": {"a1": None, "a2": True},
    }
    assert asked(ALL) == Permission(
        lacking={"PostgreSQL": ("p1", "p2"), "Redis": ("r2",)},
        untold={"Redis": "r0, r1", "NATS": "n1, n2 (no answer)", "AWS": "a1"},
    )


# What cannot be seen


def runbook(reads: Rights, *, urgent: bool = False) -> Runbook:
    nothing: Any = None
    return Runbook(
        name="rb",
        title="",
        gather=nothing,
        diagnose=nothing,
        propose=nothing,
        existing=nothing,
        remedies=nothing,
        urgent=urgent,
        page=Page(reads=reads),
    )


def test_what_hides_for_want_of_rights_is_said_by_system(answers: Answers) -> None:
    answers.held = {"postgres": {"p2": False, "p1": False}, "redis": {"r1": False}, "nats": {"n1": None}}
    found = unseen(ENVIRONMENT, READ, runbook(ALL), timeout=9)
    assert [(each.check, each.severity, each.summary, each.resource and (each.resource.kind, each.resource.id)) for each in found] == [
        ("rights to look", Severity.UNKNOWN, "cannot tell all: this login lacks rights at PostgreSQL: p1, p2", ("system", "PostgreSQL")),
        ("rights to look", Severity.UNKNOWN, "cannot tell all: this login lacks rights at Redis: r1", ("system", "Redis")),
    ]  # fmt: skip
    assert all("deploy/rights has what gives them" in each.evidence["hint"] for each in found)
    assert answers.asked["postgres"] == (READ, ALL.postgres)
    assert "aws" not in answers.asked


def test_of_what_is_asked_for_all_each_tells_its_own(answers: Answers) -> None:
    answers.held = {"postgres": {"p1": False, "p2": False}, "redis": {"r1": False}}
    mine = Rights(postgres=frozenset({"p2"}))
    found = unseen(ENVIRONMENT, READ, runbook(mine), timeout=9, among=replace(ALL, nats=frozenset()))
    assert [each.summary for each in found] == ["cannot tell all: this login lacks rights at PostgreSQL: p2"]
    assert answers.asked["redis"] == (ENVIRONMENT, ALL.redis, 9)


def test_an_emergency_asks_nobody(answers: Answers) -> None:
    assert unseen(ENVIRONMENT, READ, runbook(ALL, urgent=True), timeout=9) == []
    assert answers.asked == {}


def test_what_is_asked_is_known_by_its_key(answers: Answers) -> None:
    keys = list[object]()

    class Keeping(Asking):
        def __call__(self, key: Any, read: Any) -> Any:
            keys.append(key)
            return read()

    answers.held = {"postgres": {}}
    read: Any = SimpleNamespace(ask=Keeping())
    unseen(ENVIRONMENT, read, runbook(Rights(postgres=frozenset({"p"}))), timeout=9)
    assert keys == ["rights"]


# System by system


def test_postgres_is_asked_in_one_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    owned = [
        SimpleNamespace(word=word, partly=partly) for word, partly in (("a", True), ("b", False), ("c", None))
    ]
    monkeypatch.setattr(permission, "in_postgres", _found(owned))

    @contextmanager
    def snapshot() -> Any:
        yield "one"

    read: Any = SimpleNamespace(sql=SimpleNamespace(snapshot=snapshot))
    assert permission._of_postgres(read, frozenset("abc")) == {"a": True, "b": False}


def _found(owned: list[Any]) -> Any:
    def in_postgres(snapshot: object, words: object) -> list[Any]:
        assert (snapshot, words) == ("one", frozenset("abc"))
        return owned

    return in_postgres


class Account:
    """An account whose policies allow what begins with `a`, and whose endpoint for `late` does not answer."""

    def __init__(self, arn: str = "arn:aws:iam::12:user/chani") -> None:
        self.arn, self.asked = arn, list[tuple[str, str, Mapping[str, object]]]()

    def read(self, service: str, operation: str, /, **params: Any) -> Mapping[str, Any]:
        self.asked.append((service, operation, params))
        if operation == "get_caller_identity":
            return {"Arn": self.arn}
        raise AssertionError(operation)


def test_aws_is_asked_target_by_target_and_what_one_refuses_others_may_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = Account()
    read: Any = SimpleNamespace(aws=account)
    seen = list[tuple[Any, ...]]()

    def simulate(aws: object, arn: str, target: str, actions: list[str]) -> dict[str, bool]:
        seen.append((aws, arn, target, actions))
        if target.endswith("db:*"):
            raise Denied("no right")
        return {each: each.endswith("Rule") for each in actions}

    def gathering(probes: Any, *, deadline: float) -> Any:
        assert deadline == pytest.approx(4.05)  # before the nine seconds are over that all have together
        return gather(probes, deadline=9)

    monkeypatch.setattr(permission, "simulate", simulate)
    monkeypatch.setattr(permission, "gather", gathering)
    words = frozenset({"events:DisableRule", "ecs:UpdateService", "rds:ModifyDBInstance", "s3:GetObject"})
    held = permission._of_aws(ENVIRONMENT, read, words, 9)
    assert held == {
        "events:DisableRule": True,
        "ecs:UpdateService": False,
        "rds:ModifyDBInstance": None,
        "s3:GetObject": None,
    }
    assert account.asked == [("sts", "get_caller_identity", {})]
    assert {(aws, arn) for aws, arn, _, _ in seen} == {(account, account.arn)}
    assert sorted(target.split(":")[2:5] for _, _, target, _ in seen) == [
        [name, "eu-1", "12"] for name in ("ecs", "events", "rds")
    ]


def test_redis_and_nats_are_asked_with_the_environments_own_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def redis(url: str, *, timeout: float) -> Any:
        return SimpleNamespace(what=(url, timeout), server=lambda: SimpleNamespace(cluster="whether"))

    def nats(url: str, *, timeout: float, tls_ca: str | None) -> Any:
        return (url, timeout, tls_ca)

    monkeypatch.setattr("sandbox.adapters.redis_access.RedisAccess", redis)
    monkeypatch.setattr("sandbox.adapters.nats_access.NatsAccess", nats)
    monkeypatch.setattr(
        permission,
        "in_redis",
        lambda server, words, *, cluster: {str((server.what, sorted(words), cluster)): True},
    )
    monkeypatch.setattr(permission, "in_nats", lambda server, words: {str((server, sorted(words))): True})
    assert permission._of_redis(ENVIRONMENT, frozenset({"r"}), 9) == {"(('r', 9), ['r'], 'whether')": True}
    assert permission._of_nats(ENVIRONMENT, frozenset({"n"}), 9) == {"(('n', 9, 'ca'), ['n'])": True}
