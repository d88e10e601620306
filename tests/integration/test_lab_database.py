"""The incidents of RB-SB-005 and RB-SB-006: the servers themselves say what is wrong, and that it is right again."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import psycopg
import pytest
import redis

from lab import control, provisioner, volume
from lab.incidents import database_world
from lab.incidents.database import BALLAST, INCIDENTS, TABLESPACE
from lab.incidents.slow import DROPPED, INVALID, ROWS, STALE_ROWS
from lab.incidents.slow import INCIDENTS as SLOW
from lab.incidents.stage import Stage
from lab.scene import Scene
from tests.conftest import StartLab, suffering
from tests.waiting import eventually

GIB = 2**30
INDEXES = {
    *("sandboxes_pkey", "sandboxes_name_unique", "sandboxes_schema_name_unique"),
    *("idx_sandboxes_status", "idx_sandboxes_owner", "idx_sandboxes_expires", "idx_sandboxes_created"),
    *("sandbox_guild_mapping_pkey", "idx_sandbox_guild_mapping_sandbox"),
    *("sandbox_audit_log_pkey", "idx_sandbox_audit_log_sandbox_time", "idx_sandbox_audit_log_type"),
}
VIEW = "SELECT pg_get_viewdef('pg_catalog.pg_stat_activity'::regclass)"
OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


class Ward:
    """The lab that all incidents share, looked at from outside."""

    def __init__(self, lab: control.Lab) -> None:
        self.lab = lab
        self.redis = redis.Redis.from_url(lab.env["REDIS_URL"])
        self.clients: dict[str, Any] = {}

    def rows(self, query: str, *, database: str = "arrakis") -> list[tuple[Any, ...]]:
        """What a query says, over a connection of its own."""
        url = self.lab.env["DATABASE_URL"].replace("/arrakis", f"/{database}")
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            found = connection.execute(query.encode())
            return found.fetchall() if found.description else []

    def one(self, query: str) -> Any:
        """Its only value."""
        [(value,)] = self.rows(query)
        return value

    def client(self, service: str) -> Any:
        """A client of the AWS endpoint."""
        if service not in self.clients:
            self.clients[service] = boto3.client(
                service,
                endpoint_url=self.lab.env["AWS_ENDPOINT_URL"],
                region_name=self.lab.env["AWS_DEFAULT_REGION"],
                aws_access_key_id="lab",
                aws_secret_access_key="lab",
            )
        return self.clients[service]

    def ringing(self) -> list[str]:
        """The alarms that have gone off."""
        found = self.client("cloudwatch").describe_alarms(StateValue="ALARM")["MetricAlarms"]
        return [each["AlarmName"] for each in found]

    def measured(self, metric: str, *, cache: bool = False, statistic: str = "Minimum") -> list[float]:
        """A metric's values of six hours, the oldest first."""
        named = ("CacheClusterId", "arrakis-lab-001") if cache else ("DBInstanceIdentifier", "arrakis-lab")
        now = datetime.now(UTC)
        points = self.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/ElastiCache" if cache else "AWS/RDS",
            MetricName=metric,
            Dimensions=[{"Name": named[0], "Value": named[1]}],
            StartTime=now - timedelta(hours=6, minutes=15),
            EndTime=now + timedelta(minutes=5),
            Period=300,
            Statistics=[statistic],
        )["Datapoints"]
        return [point[statistic] for point in sorted(points, key=lambda point: point["Timestamp"])]

    def logged(self) -> list[Mapping[str, Any]]:
        """The JSON lines of the API's log that tell of an error within the last hour."""
        found = self.client("logs").filter_log_events(
            logGroupName="/ecs/arrakis-api",
            filterPattern="{ $.level >= 50 }",
            startTime=int((time.time() - 3600) * 1000),
        )["events"]
        return [json.loads(each["message"]) for each in found]

    def attempt(self) -> str:
        """What the API meets that creates a schema: an SQLSTATE, or nothing."""
        return provisioner.attempt(self.lab.env["DATABASE_URL"]).code

    def pings(self, count: int) -> list[float]:
        """How long Redis took to answer, in seconds."""
        return [self._ping() for _ in range(count)]

    def _ping(self) -> float:
        began = time.monotonic()
        self.redis.ping()
        spent = time.monotonic() - began
        time.sleep(0.06)  # not in the same rest of whoever keeps it busy
        return spent

    def see_that_all_is_well(self) -> None:
        """Whatever either runbook looks at."""
        assert self.attempt() == ""
        assert self.ringing() == []
        assert self.logged() == []
        assert self.measured("FreeStorageSpace")[-1] == pytest.approx(61e9)
        assert self.measured("DatabaseConnections", statistic="Maximum")[-1] < 20
        assert self.measured("EngineCPUUtilization", cache=True, statistic="Maximum")[-1] < 5
        held = "SELECT relname FROM pg_class WHERE oid IN (SELECT indexrelid FROM pg_index WHERE indisvalid)"
        assert {name for (name,) in self.rows(held)} >= INDEXES
        assert self.one("SELECT count(*) FROM pg_index WHERE NOT indisvalid OR NOT indisready") == 0
        tables = """SELECT relname::text, n_live_tup, n_dead_tup, n_mod_since_analyze
            FROM pg_stat_user_tables WHERE schemaname = 'public' ORDER BY 1"""
        live = {"sandbox_audit_log": 36, "sandbox_guild_mapping": 12, "sandboxes": 16}
        assert self.rows(tables) == [(name, count, 0, 0) for name, count in live.items()]
        assert self.one("SELECT reloptions FROM pg_class WHERE oid = 'public.sandboxes'::regclass") is None
        eventually(lambda: self.one(OTHERS) == 0)
        assert self.rows(VIEW) == self.rows(VIEW, database="postgres")
        assert self.redis.slowlog_len() == 0
        assert min(self.pings(2)) < 0.1


@pytest.fixture(scope="module")
def ward(start_lab: StartLab) -> Iterator[Ward]:
    """A lab with the incidents' world, of which the first is over."""
    shared = Ward(control.relieve(start_lab("create-denied"), "create-denied"))
    yield shared
    shared.redis.close()


def test_the_world_is_healthy_in_all_that_is_looked_at(ward: Ward) -> None:
    ward.see_that_all_is_well()
    statuses = dict(ward.rows("SELECT status::text, count(*) FROM sandboxes GROUP BY 1"))
    assert statuses == {"running": 12, "destroyed": 4}
    unused = "SELECT indexrelname FROM pg_stat_user_indexes WHERE schemaname = 'public' AND idx_scan = 0"
    assert ward.rows(unused) == []
    names = {name for (name,) in ward.rows("SELECT nspname::text FROM pg_namespace")}
    ids = ward.rows("SELECT id::text FROM sandboxes WHERE status = 'running'")
    assert {name for name in names if name.startswith("sandbox_")} == {f"sandbox_{each}" for (each,) in ids}
    assert ward.rows(
        "SELECT DISTINCT nspowner::regrole::text FROM pg_namespace WHERE nspname ~ '^sandbox_'"
    ) == [("arrakis_app",)]
    assert sum(ward.redis.exists(f"sandbox:{each}:string:0") for (each,) in ids) == 12


def test_the_role_has_the_rights_of_the_deployed_system_and_no_more(ward: Ward) -> None:
    [found] = ward.rows(
        "SELECT rolsuper, rolcreatedb, rolcreaterole, rolcanlogin, rolconnlimit FROM pg_roles WHERE rolname = 'arrakis_app'"
    )
    assert found == (False, False, False, True, database_world.APP_CONNECTIONS)
    assert ward.one("SELECT has_database_privilege('arrakis_app', 'arrakis', 'CONNECT, CREATE')")
    assert not ward.one("SELECT has_schema_privilege('arrakis_app', 'public', 'CREATE')")
    granted = "SELECT has_table_privilege('arrakis_app', 'sandboxes', '{}')"
    held = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES")
    assert [ward.one(granted.format(each)) for each in held] == [*[True] * 4, False, False]


@pytest.mark.soak
def test_the_world_is_the_same_each_time() -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert database_world.build(now) == database_world.build(now)


def see_what_the_api_met(ward: Ward, code: str, words: str, step: str) -> None:
    assert ward.attempt() == code
    assert ward.ringing() == ["arrakis-lab-sandbox-schema-failures"]
    told = [line for line in ward.logged() if line["component"] == "SchemaProvisioner"]
    assert {(line["msg"], line["error"]["code"]) for line in told} == {(step, code)}
    assert len(told) == 5
    [other, *_] = [line for line in ward.logged() if line["component"] == "SandboxManager"]
    assert words in other["error"]["details"]["originalError"]


def no_scene(wanted: Scene) -> None:
    raise AssertionError(wanted)


CREATE, LOOK = "Failed to create sandbox schema", "Failed to check schema existence"


@pytest.mark.soak
def test_the_role_may_not_create_schemas(ward: Ward) -> None:
    # A lab remembers that it had it: here it is made and removed by hand.
    stage = Stage(env=ward.lab.env, now=datetime.now(UTC), play=no_scene)
    [incident] = [each for each in INCIDENTS if each.name == "create-denied"]
    incident.lay_out(stage)
    assert not ward.one("SELECT has_database_privilege('arrakis_app', 'arrakis', 'CREATE')")
    see_what_the_api_met(ward, "42501", "permission denied for database arrakis", CREATE)
    assert incident.relieve
    incident.relieve(stage)
    incident.relieve(stage)  # it may be over already
    ward.see_that_all_is_well()


@pytest.mark.soak
def test_the_function_is_missing(ward: Ward) -> None:
    with suffering(ward.lab, "function-missing"):
        assert ward.one("SELECT to_regproc('public.create_sandbox_schema')") is None
        see_what_the_api_met(ward, "42883", "function create_sandbox_schema(unknown) does not exist", CREATE)
    assert ward.one("SELECT has_function_privilege('arrakis_app', 'create_sandbox_schema(text)', 'EXECUTE')")
    ward.see_that_all_is_well()


@pytest.mark.soak
def test_sessions_idle_in_transaction_hold_all_that_the_role_may_have(ward: Ward) -> None:
    query = """SELECT application_name, state, count(*), min(now() - state_change) > interval '10 minutes'
        FROM pg_stat_activity WHERE usename = 'arrakis_app' GROUP BY 1, 2 ORDER BY 1, 2"""
    with suffering(ward.lab, "idle-in-transaction"):
        assert ward.rows(query) == [
            ("arrakis-api", "idle", 2, False),
            ("arrakis-api", "idle in transaction", database_world.APP_CONNECTIONS - 3, True),
            ("gaib", "idle in transaction", 1, False),
        ]
        assert ward.measured("DatabaseConnections", statistic="Maximum")[-1] >= database_world.APP_CONNECTIONS
        see_what_the_api_met(ward, "53300", "too many connections for role", LOOK)
        # Whoever ends them has cured it: nobody takes those connections again.
        aged = """FROM pg_stat_activity WHERE application_name = 'arrakis-api' AND state = 'idle in transaction'
            AND now() - state_change > interval '10 minutes'"""
        moments = "SELECT bool_and(backend_start <= xact_start AND xact_start <= state_change) " + aged
        assert ward.one(moments)
        ward.rows("SELECT pg_terminate_backend(pid) " + aged)
        eventually(lambda: ward.attempt() == "")
        assert ward.one("SELECT count(*) " + aged) == 0
    ward.see_that_all_is_well()


@pytest.mark.soak
def test_a_pool_leaks_until_only_superusers_get_in(ward: Ward) -> None:
    query = "SELECT usename, application_name, state FROM pg_stat_activity WHERE usename LIKE 'arrakis%' GROUP BY 1, 2, 3"
    with suffering(ward.lab, "connections-leaking"):
        assert ward.rows(query) == [("arrakis_worker", "arrakis-worker", "idle")]
        assert ward.measured("DatabaseConnections", statistic="Maximum")[-1] > 80
        see_what_the_api_met(ward, "53300", "remaining connection slots are reserved", LOOK)
    ward.see_that_all_is_well()


def test_the_disk_is_full_until_the_storage_is_enlarged(ward: Ward) -> None:
    with suffering(ward.lab, "disk-full"):
        left = ward.measured("FreeStorageSpace")
        assert left[0] > 50e9 > left[36] > 20e9 > left[-1]
        assert left[-1] < GIB / 4
        see_what_the_api_met(ward, "53100", "No space left on device", CREATE)
        assert ward.one(f"SELECT pg_tablespace_size('{TABLESPACE}')") > 99 * 2**20
        rds = ward.client("rds")
        rds.modify_db_instance(DBInstanceIdentifier="arrakis-lab", AllocatedStorage=120)
        assert ward.attempt() == "53100"  # without ApplyImmediately it waits for its window
        rds.modify_db_instance(
            DBInstanceIdentifier="arrakis-lab", AllocatedStorage=120, ApplyImmediately=True
        )
        assert rds.describe_db_instances()["DBInstances"][0]["AllocatedStorage"] == 120
        assert ward.attempt() == ""
        assert 18 * GIB < ward.measured("FreeStorageSpace")[-1] < 22 * GIB
    assert ward.rows(f"SELECT FROM pg_class WHERE relname = '{BALLAST}'") == []
    ward.see_that_all_is_well()


@pytest.mark.soak
def test_indexes_are_dropped_from_a_table_of_many_rows(ward: Ward) -> None:
    with suffering(ward.lab, "index-dropped"):
        assert [ward.one(f"SELECT to_regclass('{name}')") for name in DROPPED] == [None, None]
        assert ward.one("SELECT count(*) FROM sandboxes WHERE status = 'destroyed'") == ROWS + 4
        for condition in ("owner = 'chani'", "status IN ('pending', 'creating', 'running')"):
            [(plan,), *_] = ward.rows(f"EXPLAIN SELECT FROM sandboxes WHERE {condition}")
            assert plan.startswith("Seq Scan on sandboxes")
        ward.rows(f"CREATE INDEX {DROPPED[0]} ON sandboxes (owner)")  # somebody has mended half of it
    ward.see_that_all_is_well()


@pytest.mark.soak
def test_an_index_that_could_not_be_finished_is_left_invalid(ward: Ward) -> None:
    with suffering(ward.lab, "index-invalid"):
        query = "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE NOT indisvalid"
        assert ward.rows(query) == [(INVALID, False)]
        [(plan,), *_] = ward.rows("EXPLAIN SELECT FROM sandboxes WHERE owner = 'chani'")
        assert plan.startswith("Seq Scan on sandboxes")
    ward.see_that_all_is_well()


@pytest.mark.soak
def test_others_queue_behind_an_alter_table_that_was_left_open(ward: Ward) -> None:
    query = """SELECT pid, application_name, state, pg_blocking_pids(pid), now() - xact_start > interval '10 minutes'
        FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY 5 DESC, 2"""
    with suffering(ward.lab, "control-lock-held"):
        [root, api, worker, gaib] = ward.rows(query)
        assert root[1:] == ("psql", "idle in transaction", [], True)
        assert api[1:] == ("arrakis-api", "active", [root[0]], False)
        assert worker[1:] == ("arrakis-worker", "active", [api[0]], False)
        assert gaib[1:] == ("gaib", "active", [root[0]], False)
        held = "SELECT mode FROM pg_locks WHERE relation = 'sandboxes'::regclass AND granted"
        assert ("AccessExclusiveLock",) in ward.rows(held)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            ward.rows("SET lock_timeout = '50ms'; SELECT FROM sandboxes")
        # Whoever ends the first lets all of them go.
        ward.rows(f"SELECT pg_terminate_backend({root[0]})")
        eventually(lambda: ward.one(OTHERS) == 0)
    assert (
        ward.rows("SELECT FROM pg_attribute WHERE attname = 'region' AND attrelid = 'sandboxes'::regclass")
        == []
    )
    ward.see_that_all_is_well()


@pytest.mark.soak
def test_a_script_keeps_redis_busy(ward: Ward) -> None:
    with suffering(ward.lab, "redis-slow"):
        slow = ward.pings(6)
        assert sorted(slow)[3] > 0.1
        [entry, *_] = ward.redis.slowlog_get(1)
        assert entry["command"].startswith(b"EVAL")
        assert (
            entry["duration"] > 100_000
        )  # µs; how long it takes was measured on a host that was busier, or less
        assert b"arrakis-leaderboard" in [each["name"].encode() for each in ward.redis.client_list()]
        assert ward.measured("EngineCPUUtilization", cache=True, statistic="Maximum")[-1] > 80
    ward.see_that_all_is_well()


@pytest.mark.soak
def test_statistics_are_of_a_far_smaller_table(ward: Ward) -> None:
    with suffering(ward.lab, "statistics-stale"):
        query = (
            "SELECT n_mod_since_analyze FROM pg_stat_user_tables WHERE relid = 'public.sandboxes'::regclass"
        )
        assert ward.one(query) == STALE_ROWS
        options = "SELECT reloptions FROM pg_class WHERE oid = 'public.sandboxes'::regclass"
        assert ward.one(options) == ["autovacuum_enabled=off"]
        explain = "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM sandboxes WHERE status <> 'destroyed'"
        plan = ward.one(explain)[0]["Plan"]
        assert plan["Actual Rows"] == 12
        assert plan["Plan Rows"] > 10_000
    ward.see_that_all_is_well()


def test_each_says_what_it_is_about_and_they_share_one_world() -> None:
    assert [each.name for each in (*INCIDENTS, *SLOW)] == [
        *("idle-in-transaction", "connections-leaking", "create-denied", "function-missing", "disk-full"),
        *("index-dropped", "index-invalid", "control-lock-held", "redis-slow", "statistics-stale"),
    ]
    assert {each.world for each in (*INCIDENTS, *SLOW)} == {database_world.lay_out}
    assert all(each.summary and each.relieve for each in (*INCIDENTS, *SLOW))


@pytest.mark.soak
def test_actors_and_the_database_on_its_own_disk_end_with_the_lab(tmp_path: Path) -> None:
    lab = control.start(tmp_path, watch_parent=True)
    (tmp_path / "scene.json").write_text(json.dumps({"actors": {"script": []}, "volume": 8}))
    state = tmp_path / "state.json"
    eventually(lambda: json.loads(state.read_text())["scene"]["volume"] == 8)
    server = json.loads(state.read_text())["servers"]["postgres"]["pid"]
    assert 7 * 2**20 < volume.left(server) <= 8 * 2**20
    with psycopg.connect(lab.env["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    [actor] = [
        int(each.name)
        for each in Path("/proc").glob("[0-9]*")
        if parent_of(each) == lab.pid and b"lab.actors" in (each / "cmdline").read_bytes()
    ]
    assert control.stop(tmp_path)
    for pid in (actor, server):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def parent_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0
