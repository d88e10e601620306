"""What keeps a role from creating schemas is mended: exactly that, behind the lease, and given back where it can be."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import boto3  # type: ignore[import-untyped, unused-ignore]
import pytest
from botocore import handlers  # type: ignore[import-untyped, unused-ignore]

from diagnostics.migration import Part, faults, parts, read_items
from diagnostics.rights import read_rights
from diagnostics.servers import read_instance
from lab.names import INSTANCE
from runbooks.engine.errors import LeaseHeld
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Reversibility, State
from runbooks.remedies.database import GrantRight, grant_right, migrate, try_creating
from runbooks.remedies.storage import enlarge_storage
from sandbox.adapters.postgres import Postgres
from sandbox.errors import ArrakisError, Denied, Missing
from tests.integration.gated import Gated, gated
from tests.integration.world import World

APP = "arrakis_app"
PARTS = {part.name.partition("(")[0]: part for part in parts()}
CREATE, DROP = PARTS["create_sandbox_schema"], PARTS["drop_sandbox_schema"]


class Wire:
    """Between the remedies and AWS: says what RDS is to have said, and remembers what it was asked to change."""

    def __init__(self) -> None:
        self.instances: deque[Mapping[str, Any]] = deque()
        self.events: list[Mapping[str, Any]] = []
        self.changes: list[Mapping[str, Any]] = []

    def note(self, *, model: Any, params: dict[str, Any], **_: Any) -> None:
        """Remember a change."""
        if model.name == "ModifyDBInstance":
            self.changes.append(dict(params))

    def answer(self, *, model: Any, **_: Any) -> tuple[Any, dict[str, Any]] | None:
        """Say what was prepared: the last answer again and again; or let the call pass."""
        said: dict[str, Any] | None = None
        if model.name == "DescribeDBInstances" and self.instances:
            raw = self.instances[0] if len(self.instances) == 1 else self.instances.popleft()
            said = {"DBInstances": [raw]}
        if model.name == "DescribeEvents" and self.instances:
            said = {"Events": self.events}
        return (SimpleNamespace(status_code=200), {**said, "ResponseMetadata": {}}) if said else None


@pytest.fixture(scope="module")
def wire() -> Wire:
    """Return the wire."""
    return Wire()


@pytest.fixture(scope="module")
def gate(world: World, wire: Wire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    """Return the remedies, in a database with the deployed system's role in it."""
    world.sql.execute(f"CREATE ROLE {APP} LOGIN; GRANT CREATE ON DATABASE arrakis TO {APP}".encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        for name, value in world.env.items():
            patch.setenv(name, value)
        patch.setattr("runbooks.remedies.storage._POLL", 0.01)
        ours = [("before-parameter-build", wire.note), ("before-call", wire.answer)]
        patch.setattr(handlers, "BUILTIN_HANDLERS", [*handlers.BUILTIN_HANDLERS, *ours])
        with gated(world.env, tmp_path_factory.mktemp("state")) as remedies:
            yield remedies


@pytest.fixture
def lost(world: World, gate: Gated) -> Iterator[None]:
    """Let somebody else have the lease."""
    world.sql.execute("UPDATE runbooks.lease SET token = token + 1")
    yield
    world.sql.execute("UPDATE runbooks.lease SET token = token - 1")


# ---- rights


def lacking(gate: Gated) -> list[Action]:
    """Return what grants each right that the role lacks."""
    with gate.read.sql.snapshot() as snapshot:
        seen = read_rights(snapshot, deployed=APP)
    return [grant_right(right, deployed=APP, reason="it is lacking") for right in seen.lacking(APP)]


@pytest.fixture
def granting(world: World, gate: Gated) -> Iterator[Action]:
    """Return the action that grants the right to create schemas, which was revoked."""
    world.sql.execute(f"REVOKE CREATE ON DATABASE arrakis FROM {APP}".encode())
    [action] = [each for each in lacking(gate) if each.before["kind"] == "database"]
    yield action
    world.sql.execute(f"GRANT CREATE ON DATABASE arrakis TO {APP}".encode())


def may_create(world: World) -> bool:
    """Whether the role may create schemas."""
    return bool(world.one("SELECT has_database_privilege(%s, 'arrakis', 'CREATE')", APP))


def test_a_right_is_granted_and_revoked(world: World, gate: Gated, granting: Action) -> None:
    assert granting.resource.id == f"CREATE ON DATABASE arrakis TO {APP}"
    assert granting.reversibility is Reversibility.REVERSIBLE
    assert (gate.state(granting)[0], gate.in_use(granting)) == (State.BEFORE, None)
    assert gate.apply(granting) == (State.AFTER, f"{APP} has it")
    assert may_create(world)
    gate.remedies[granting.verb].revert(granting)
    assert not may_create(world)


def test_every_right_that_is_lacking_can_be_granted(world: World, gate: Gated) -> None:
    actions = lacking(gate)
    assert len(actions) == 9  # three for each of the tables
    for action in actions:
        assert gate.apply(action)[0] is State.AFTER
    assert lacking(gate) == []
    for action in actions:
        gate.remedies[action.verb].revert(action)
    assert lacking(gate) == actions


def test_no_right_is_granted_once_the_lease_is_lost(
    world: World, gate: Gated, granting: Action, lost: None
) -> None:
    with pytest.raises(LeaseHeld):
        gate.apply(granting)
    assert not may_create(world)


def test_another_right_than_the_server_would_grant_is_left_alone(
    world: World, gate: Gated, granting: Action
) -> None:
    forged = {**granting.before, "statement": f"GRANT ALL ON DATABASE arrakis TO {APP}"}
    action = replace(granting, before=forged)
    assert gate.state(action)[0] is State.CHANGED
    with pytest.raises(ArrakisError, match="is gone"):
        gate.apply(action)
    assert not may_create(world)


def test_who_may_not_grant_it_is_told_whose_it_is(world: World, gate: Gated, granting: Action) -> None:
    world.sql.execute("CREATE ROLE operator LOGIN")
    url = world.env["DATABASE_URL"].replace("lab@", "operator@")
    other = replace(gate.read, sql=Postgres(url, tag="tests"))
    mine = GrantRight(Gate(read=other, write=gate.write, fence=lambda _: None, tell=lambda _: None))
    assert mine.in_use(granting) == "it belongs to lab, and this role may not grant it"


# ---- the migration


@pytest.fixture
def without(world: World, gate: Gated) -> Iterator[Callable[[str], None]]:
    """Return how to take parts of the migration away; all are there again afterwards."""

    def take(statement: str) -> None:
        world.sql.execute(statement.encode())

    yield take
    world.database.script("migrations/0001_control_tables")


def missing(gate: Gated) -> list[str]:
    """Return what of the migration is not as it should be."""
    with gate.read.sql.snapshot() as snapshot:
        return [fault.name for fault in faults(read_items(snapshot))]


def making(part: Part) -> Action:
    """Return the action that makes a part."""
    return migrate(part, reason="it does not exist")


def test_a_function_is_made_again_and_dropped(gate: Gated, without: Callable[[str], None]) -> None:
    without("DROP FUNCTION create_sandbox_schema(text)")
    action = making(CREATE)
    assert gate.state(action) == (State.BEFORE, "it does not exist")
    assert gate.apply(action)[0] is State.AFTER
    assert missing(gate) == []
    gate.remedies[action.verb].revert(action)
    assert missing(gate) == [CREATE.name]


def test_all_of_it_is_made_again_piece_by_piece(gate: Gated, without: Callable[[str], None]) -> None:
    without("DROP TABLE sandbox_audit_log, sandbox_guild_mapping, sandboxes; DROP TYPE sandbox_status")
    actions = [making(part) for part in parts() if part.kind != "function"]
    for action in actions:
        assert gate.apply(action)[0] is State.AFTER
    assert missing(gate) == []
    for action in reversed(actions):
        gate.remedies[action.verb].revert(action)
    assert len(missing(gate)) == len(actions)


def test_a_function_that_is_there_is_never_replaced(
    world: World, gate: Gated, without: Callable[[str], None]
) -> None:
    without(
        "CREATE OR REPLACE FUNCTION drop_sandbox_schema(p_sandbox_id text) RETURNS void LANGUAGE sql AS 'SELECT'"
    )
    action = making(DROP)
    assert gate.state(action)[0] is State.CHANGED
    with pytest.raises(ArrakisError, match="not missing any more"):
        gate.apply(action)
    assert world.one("SELECT prosrc FROM pg_proc WHERE proname = 'drop_sandbox_schema'") == "SELECT"


def test_a_table_of_which_a_column_is_missing_is_left_alone(
    gate: Gated, without: Callable[[str], None], world: World
) -> None:
    without("ALTER TABLE sandbox_audit_log DROP COLUMN actor")
    action = making(PARTS["sandbox_audit_log"])
    assert gate.state(action) == (State.CHANGED, "sandbox_audit_log.actor: no varchar(64) NOT NULL")
    with pytest.raises(ArrakisError, match="left alone"):
        gate.apply(action)
    world.sql.execute("ALTER TABLE sandbox_audit_log ADD actor varchar(64) NOT NULL")


def test_a_table_with_rows_by_now_stays(world: World, gate: Gated, without: Callable[[str], None]) -> None:
    without("DROP TABLE sandbox_guild_mapping")
    actions = [making(PARTS[name]) for name in ("sandbox_guild_mapping", "idx_sandbox_guild_mapping_sandbox")]
    for action in actions:
        gate.apply(action)
    row = world.write_row("kept", "running")
    world.sql.execute("INSERT INTO sandbox_guild_mapping VALUES ('1', %s)", (row,))
    with pytest.raises(ArrakisError, match="has rows by now"):
        gate.remedies["migrate"].revert(actions[0])
    assert world.count("SELECT count(*) FROM sandbox_guild_mapping") == 1
    world.sql.execute("DELETE FROM sandboxes")


def test_nothing_is_made_once_the_lease_is_lost(
    gate: Gated, without: Callable[[str], None], lost: None
) -> None:
    without("DROP FUNCTION create_sandbox_schema(text)")
    with pytest.raises(LeaseHeld):
        gate.apply(making(CREATE))
    assert missing(gate) == [CREATE.name]


# ---- the trial


def trying(id: UUID | None = None, role: str = APP) -> Action:
    """Return the action that tries to create a schema."""
    return try_creating(id or uuid4(), role=role, acting=role != "lab")


@pytest.mark.parametrize("role", [APP, "lab"])
def test_a_schema_is_created_timed_and_dropped(world: World, gate: Gated, role: str) -> None:
    action = trying(role=role)
    assert gate.state(action)[0] is State.BEFORE
    gate.remedies[action.verb].apply(action)
    seen = gate.remedies[action.verb].observe(action)
    assert seen.state is State.AFTER
    assert seen.evidence["role"] == role
    assert 0 < seen.evidence["dropped_ms"] < 10_000
    assert seen.reason.startswith(f"created in {seen.evidence['created_ms']:.0f} ms, dropped in ")
    assert seen.reason.endswith(f" ms as {role}")
    assert world.schemas() == set()


def test_as_whom_it_is_created_is_true(world: World, gate: Gated) -> None:
    world.sql.execute(f"REVOKE CREATE ON DATABASE arrakis FROM {APP}".encode())
    with pytest.raises(Denied, match="permission denied for database arrakis"):
        gate.apply(trying())
    assert gate.apply(trying(role="lab"))[0] is State.AFTER
    world.sql.execute(f"GRANT CREATE ON DATABASE arrakis TO {APP}".encode())
    assert world.schemas() == set()


def test_what_an_interrupted_trial_left_is_dropped(world: World, gate: Gated) -> None:
    for end in ("apply", "revert"):
        action = trying(role="lab")
        world.sql.execute("SELECT create_sandbox_schema(%s)", (action.before["id"],))
        assert gate.state(action) == (State.PARTLY, "it was made, and not dropped")
        getattr(gate.remedies[action.verb], end)(action)
        assert world.schemas() == set()
        assert gate.state(action)[0] is (State.AFTER if end == "apply" else State.BEFORE)


def test_a_schema_that_a_sandbox_has_is_never_touched(world: World, gate: Gated) -> None:
    row = world.write_row("taken", "running")
    action = trying(row, role="lab")
    for exists in (False, True):
        if exists:
            world.sql.execute("SELECT create_sandbox_schema(%s)", (str(row),))
        assert gate.state(action)[0] is State.CHANGED
        for step in ("apply", "revert"):
            if exists or step == "apply":
                with pytest.raises(ArrakisError, match="taken"):
                    getattr(gate.remedies[action.verb], step)(action)
        assert world.schemas() == ({f"sandbox_{row}"} if exists else set())
    world.wipe()


SILENT = "CREATE OR REPLACE FUNCTION {}(p_sandbox_id text) RETURNS void LANGUAGE plpgsql AS 'BEGIN END'"
EMPTY = """CREATE OR REPLACE FUNCTION create_sandbox_schema(p_sandbox_id text) RETURNS void LANGUAGE plpgsql
    AS $$ BEGIN EXECUTE format('CREATE SCHEMA %I', 'sandbox_' || p_sandbox_id); END $$"""


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("DROP FUNCTION create_sandbox_schema(text)", "function public.create_sandbox_schema"),
        (SILENT.format("create_sandbox_schema"), "said nothing, and made no schema"),
        (EMPTY, "made 0 tables in place of 3"),
        ("DROP FUNCTION drop_sandbox_schema(text)", "drop_sandbox_schema fails, so it was dropped directly"),
        (SILENT.format("drop_sandbox_schema"), "it said nothing, and the schema is there still"),
    ],
    ids=["missing", "silent", "empty", "no drop", "silent drop"],
)
def test_whatever_goes_wrong_is_told_and_no_schema_is_left(
    world: World, gate: Gated, without: Callable[[str], None], change: str, error: str
) -> None:
    without(change)
    action = trying()
    with pytest.raises(ArrakisError, match=error) as raised:
        gate.apply(action)
    assert isinstance(raised.value, Missing) is change.startswith("DROP FUNCTION create")
    assert gate.state(action)[0] is State.BEFORE
    assert world.schemas() == set()
    world.sql.execute("DROP FUNCTION IF EXISTS create_sandbox_schema, drop_sandbox_schema")


def test_nothing_is_tried_once_the_lease_is_lost(world: World, gate: Gated, lost: None) -> None:
    with pytest.raises(LeaseHeld):
        gate.apply(trying())
    assert world.schemas() == set()


# ---- storage


def raw(gib: int, status: str = "available", pending: int | None = None) -> Mapping[str, Any]:
    """Return an instance as RDS describes it."""
    return {
        "DBInstanceIdentifier": INSTANCE,
        "DBInstanceStatus": status,
        "Engine": "postgres",
        "EngineVersion": "15.8",
        "AllocatedStorage": gib,
        "PendingModifiedValues": {"AllocatedStorage": pending} if pending else {},
    }


@pytest.fixture
def enlarging(gate: Gated, wire: Wire) -> Iterator[Action]:
    """Return the action that makes 100 GiB 125; nothing is prepared on the wire."""
    wire.changes.clear()
    wire.events.clear()
    now = datetime.now(UTC)
    seen = read_instance(gate.read.aws, identifier=INSTANCE, now=now, window=timedelta(hours=6))
    yield enlarge_storage(replace(seen, storage_gib=100), 125, reason="0.0 of 100 GiB are left")
    wire.instances.clear()


def test_storage_is_enlarged_at_once_and_for_good(gate: Gated, wire: Wire, enlarging: Action) -> None:
    assert enlarging.reversibility is Reversibility.IRREVERSIBLE
    assert "can never be made less" in enlarging.reason
    assert gate.state(enlarging) == (State.BEFORE, "it has 100 GiB and is available")
    assert gate.in_use(enlarging) is None
    assert gate.apply(enlarging) == (State.AFTER, "it has 125 GiB and is available")
    assert gate.apply(enlarging)[0] is State.AFTER
    asked = {"DBInstanceIdentifier": INSTANCE, "AllocatedStorage": 125, "ApplyImmediately": True}
    assert wire.changes == [asked]
    rds = boto3.session.Session().client("rds")
    rds.modify_db_instance(DBInstanceIdentifier=INSTANCE, AllocatedStorage=100, ApplyImmediately=True)


def test_one_that_is_under_way_is_not_asked_for_again_but_waited_for(
    gate: Gated, wire: Wire, enlarging: Action
) -> None:
    under_way = raw(100, "modifying", 125)
    wire.instances.extend([under_way, under_way, under_way, raw(125, "storage-optimization")])
    assert gate.state(enlarging)[0] is State.PARTLY
    assert gate.apply(enlarging) == (State.AFTER, "it has 125 GiB and is storage-optimization")
    assert wire.changes == []


@pytest.mark.parametrize(
    ("instance", "ago", "told"),
    [
        (raw(110), None, "another change was made"),
        (raw(100, pending=110), None, "another change was made"),
        (raw(100, "storage-optimization"), None, "RDS takes no change of its storage"),
        (raw(100), timedelta(hours=1), "RDS takes no change of its storage until"),
    ],
    ids=["another size", "another on the way", "settling", "changed lately"],
)
def test_where_rds_would_refuse_it_is_left_alone(
    gate: Gated,
    wire: Wire,
    enlarging: Action,
    instance: Mapping[str, Any],
    ago: timedelta | None,
    told: str,
) -> None:
    wire.instances.append(instance)
    if ago:
        message = "Finished applying modification to allocated storage"
        wire.events.append(
            {"SourceIdentifier": INSTANCE, "Date": datetime.now(UTC) - ago, "Message": message}
        )
    state, reason = gate.state(enlarging)
    assert state is State.CHANGED
    assert told in reason
    with pytest.raises(ArrakisError, match="left alone"):
        gate.apply(enlarging)
    assert wire.changes == []


def test_storage_is_not_enlarged_once_the_lease_is_lost(
    gate: Gated, wire: Wire, enlarging: Action, lost: None
) -> None:
    with pytest.raises(LeaseHeld):
        gate.apply(enlarging)
    assert wire.changes == []


def test_one_that_takes_too_long_is_said_to_go_on(
    gate: Gated, wire: Wire, enlarging: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbooks.remedies.storage._PATIENCE", 0.05)
    wire.instances.append(raw(100, "modifying", 125))
    with pytest.raises(ArrakisError, match="has it not yet") as raised:
        gate.apply(enlarging)
    assert "RDS goes on by itself" in raised.value.hint
