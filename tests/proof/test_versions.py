"""Production's versions, the newest, and those in between: looked at, audited, maintained, put into quarantine and given back on each.

`.ci/run` installs what production runs; `npm ci --prefix tests/postgres` brings the PostgreSQLs that neither Debian nor a wheel has.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import psycopg
import pytest

import sql
from sandbox.adapters.postgres import Postgres
from tests.acceptance.dump import dump
from tests.acceptance.engineer import Engineer
from tests.acceptance.program import ROOT
from tests.acceptance.test_audit import SCHEMA
from tests.acceptance.test_database_maintenance import Log
from tests.conftest import StartLab

STATEMENTS = sorted(
    str(path.relative_to(ROOT / "sql").with_suffix("")) for path in (ROOT / "sql").glob("*/**/*.sql")
)
NPM = ROOT / "tests" / "postgres" / "node_modules"
OLD_ROWS = 200
INTERVAL, MOMENT = (psycopg.adapters.types[name].oid for name in ("interval", "timestamptz"))


def programs(name: str) -> Path:
    """Return a folder of PostgreSQL's programs, as `.ci/run` or npm has installed them."""
    debian, npm = Path(f"/usr/lib/postgresql/{name}/bin"), NPM / f"postgres-{name}" / "native" / "bin"
    found = next((each for each in (debian, npm) if (each / "postgres").exists()), None)
    assert found, f"PostgreSQL {name} is not installed: run .ci/run, or `npm ci --prefix tests/postgres`"
    return found


def server(name: str) -> Path:
    """Return a program of Debian's."""
    found = shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
    assert found, f"{name} is not installed: run .ci/run, or install it"
    return Path(found)


@dataclass(frozen=True)
class Versions:
    """Which servers: PostgreSQL of a version, or the wheel's; Debian's Redis and NATS, or the wheels'."""

    postgres: str
    redis: str
    nats: str
    installed: str = ""
    debian: bool = False

    def variables(self) -> Mapping[str, str]:
        """Return what names them to the lab."""
        named = {"LAB_POSTGRES_BIN": str(programs(self.installed))} if self.installed else {}
        if self.debian:
            named |= {
                "LAB_REDIS_BIN": str(server("redis-server")),
                "LAB_NATS_BIN": str(server("nats-server")),
            }
        return named


PRODUCTION = Versions(postgres="15.", redis="7.0.", nats="2.9.", installed="15", debian=True)
OTHERS = {
    "PostgreSQL 16": Versions(postgres="16.", redis="9.", nats="2.1", installed="16"),
    "PostgreSQL 17": Versions(postgres="17.", redis="9.", nats="2.1", installed="17"),
    "PostgreSQL 18": Versions(postgres="18.", redis="9.", nats="2.1"),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(PRODUCTION, id="production"),
        *(pytest.param(each, id=name, marks=pytest.mark.soak) for name, each in OTHERS.items()),
    ],
)
def versions(request: pytest.FixtureRequest) -> Versions:
    found = request.param
    assert isinstance(found, Versions)
    return found


@pytest.fixture(scope="module")
def engineer(versions: Versions, start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Engineer:
    """Return an engineer at a lab of these servers."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in versions.variables().items():
            patch.setenv(name, value)
        lab = start_lab()
    return Engineer(lab, tmp_path_factory.mktemp("state"))


def test_these_are_the_servers(engineer: Engineer, versions: Versions) -> None:
    running = engineer.lab.versions
    for name in ("postgres", "redis", "nats"):
        assert running[name].removeprefix("PostgreSQL ").startswith(getattr(versions, name)), running


def test_every_statement_is_understood(engineer: Engineer) -> None:
    """Migrations run, where they did before too; of all others the server finds each table, column, function and type."""
    url = engineer.lab.env["DATABASE_URL"]
    migrations = [name for name in STATEMENTS if name.startswith("migrations/")]
    for name in migrations:
        Postgres(url, tag="tests").script(name)
    refused = {}
    with psycopg.connect(url, autocommit=True) as connection:
        for name in set(STATEMENTS) - set(migrations):
            statement, types = numbered(sql.load(name))
            answer = connection.pgconn.prepare(b"", statement.encode(), types)
            if answer.status != psycopg.pq.ExecStatus.COMMAND_OK:
                refused[name] = answer.get_error_message()
    assert refused == {}


def numbered(statement: str) -> tuple[str, list[int]]:
    """Return a statement with its parameters as the server counts them, and the types of those that it cannot tell from it."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    text = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement)
    types = dict.fromkeys(re.findall(r"\(\) - %\((\w+)\)s", statement), INTERVAL)
    types |= dict.fromkeys(re.findall(r"THEN %\((\w+)\)s ELSE %", statement), MOMENT)
    return text.replace("%%", "%"), [types.get(name, 0) for name in names]


@pytest.mark.soak
def test_an_audit_leaves_nothing_unknown_and_changes_nothing(engineer: Engineer) -> None:
    before = dump(engineer.lab)
    answer = engineer.call("audit", "--json")
    assert answer.code == 2, answer.said
    jsonschema.validate(answer.document, SCHEMA)
    assert [each for each in answer.document["findings"] if each["severity"] == "unknown"] == []
    assert {each["name"]: len(each["actions"]) for each in answer.document["procedures"]}["rb-sb-003"] == 10
    assert dump(engineer.lab) == before


@pytest.mark.soak
def test_orphans_are_put_into_quarantine_and_given_back(engineer: Engineer) -> None:
    before = dump(engineer.lab)
    plan = engineer.plan()
    document = engineer.apply(plan["id"])
    after = dump(engineer.lab)
    kinds = [each["resource"]["kind"] for each in plan["actions"]]
    assert (kinds.count("schema"), kinds.count("keys")) == (7, 3)
    named = {each["resource"]["id"] for each in plan["actions"]}
    assert set(before.schemas) - set(after.schemas) | before.tokens() - after.tokens() == named

    again = engineer.call("rb-sb-003")
    engineer.undo(document["run"]["id"])
    assert dump(engineer.lab) == before
    assert again.code == 0, again.said


@pytest.mark.soak
def test_the_database_is_maintained_and_its_rows_are_given_back(engineer: Engineer, tmp_path: Path) -> None:
    log = Log(engineer.lab.env["DATABASE_URL"])
    log.fill(OLD_ROWS)
    before = log.dump()
    asked = ("database-maintenance", "--archive", str(tmp_path), "--json", "--apply", "--yes")
    applied = engineer.call(*asked)
    assert applied.code == 0, applied.said
    assert (log.old, len(log.dump())) == (0, len(before) - OLD_ROWS)
    verbs = [each["verb"] for each in applied.document["plan"]["actions"]]
    assert verbs == ["trim audit log", *["vacuum table"] * 3]
    engineer.undo(applied.document["run"]["id"])
    assert log.dump() == before
    log.run("DELETE FROM sandbox_audit_log WHERE actor = 'thufir'")
