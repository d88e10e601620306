"""Many taken away together on real servers: the same as one by one, exactly the right ones, and whatever dies meanwhile."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from runbooks.engine import stops
from runbooks.engine.apply import Outcome, execute, started
from runbooks.engine.environment import Environment, resolve
from runbooks.engine.errors import Exit
from runbooks.engine.gate import Gate
from runbooks.engine.journal import Journal
from runbooks.engine.lease import Lease, holder
from runbooks.engine.model import Action, Pace, Phase, Plan
from runbooks.engine.systems import readers, writers
from runbooks.mass.candidates import Choice
from runbooks.mass_cleanup import RUNBOOK
from runbooks.remedies import remedies
from sandbox import lifecycle, registry, schemas
from sandbox.ports import SqlTransaction
from tests.integration.crowd import Dump, dump, fill, write_keys
from tests.integration.wire import wired
from tests.integration.world import NOW, World
from tests.unit.plans import plan

CLEAN, SCHEMA, KEYS = "clean up sandbox", "quarantine schema", "quarantine keys"
HOUR = timedelta(hours=1)
TAG = "arrakis-runbooks:mass-cleanup"


@pytest.fixture(autouse=True)
def _empty(world: World) -> Iterator[None]:
    yield
    world.sql.execute("DROP SCHEMA IF EXISTS reporting CASCADE; DROP SCHEMA IF EXISTS runbooks CASCADE")
    world.wipe()


@dataclass
class Works:
    """A mass clean-up at work: what it is given, what it does on the way, and its journal."""

    world: World
    environment: Environment
    journal: Journal
    on_pause: Callable[[int], None] = lambda _: None
    on_fence: Callable[[SqlTransaction, int], None] = lambda *_: None
    _counting: threading.Lock = field(default_factory=threading.Lock)
    _pauses = _fences = 0

    def through(self, redis_url: str) -> "Works":
        """Return the same, with another way to Redis."""
        return replace(self, environment=replace(self.environment, redis_url=redis_url))

    def propose(self, **choice: Any) -> list[Action]:
        """Look, and return what would be done."""
        read = readers(self.environment, tag=TAG, timeout=10)
        stack = self.environment.stack
        seen = RUNBOOK.gather(read, now=datetime.now(UTC), deadline=20, stack=stack)
        return RUNBOOK.propose(seen, choice=Choice(**choice))[0]

    def run(
        self,
        actions: Sequence[Action],
        *,
        pace: Pace | None = None,
        run: str = "r1",
        undoes: str | None = None,
    ) -> Outcome:
        """Do it, or what is left of it, under the lease."""
        made = self.plan(actions, undoes=undoes)
        past = [entry for entry in self.journal.entries() if entry.run == run]
        if not past:
            self.journal.append(run, Phase.RUN_STARTED, observed=started(made))
        write = writers(self.environment, tag=TAG, actor="chani", timeout=5)
        with Lease.held(write.sql, holder=holder("chani"), run=run) as lease:
            gate = Gate(
                read=readers(self.environment, tag=TAG, timeout=5),
                write=write,
                fence=lambda transaction: self._fence(lease, transaction),
                tell=lambda _: None,
                pause=self._pause,
            )
            return execute(
                made,
                run,
                journal=self.journal,
                remedies=remedies(gate),
                check=lease.check,
                past=past,
                pace=pace or Pace(lot=10, failures=20),
            )

    def plan(self, actions: Sequence[Action], *, undoes: str | None = None) -> Plan:
        return plan(runbook="mass-cleanup", actions=list(actions), existing=1000, undoes=undoes)

    def phases(self) -> Counter[tuple[str, Phase]]:
        """How many records there are of each action's phases."""
        return Counter((entry.action, entry.phase) for entry in self.journal.entries() if entry.action)

    def _pause(self) -> None:
        with self._counting:
            self._pauses += 1
            number = self._pauses
        self.on_pause(number)

    def _fence(self, lease: Lease, transaction: SqlTransaction) -> None:
        lease.fence(transaction)
        with self._counting:
            self._fences += 1
            number = self._fences
        self.on_fence(transaction, number)


@pytest.fixture
def works(world: World, tmp_path: Path) -> Works:
    """Return a mass clean-up that nobody disturbs."""
    environment = resolve(None, world.env, tmp_path, tmp_path)
    journal = Journal(tmp_path / "journal.jsonl", actor="chani", clock=lambda: datetime.now(UTC))
    return Works(world, environment, journal)


def by_name(outcome: Outcome) -> dict[str, tuple[Phase | None, bool, str]]:
    """Return what became of each target."""
    return {each.action.resource.id: (each.phase, each.settled, each.reason) for each in outcome.results}


def seen(world: World) -> Dump:
    return dump(world.sql, world.redis)


@contextmanager
def session(world: World) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    """Yield a developer's session, in a transaction."""
    with psycopg.connect(world.env["DATABASE_URL"], application_name="psql") as connection:
        yield connection


# ---- the same as one by one


def furnish(world: World) -> list[UUID]:
    """Make one of each kind that a clean-up meets, and return their ids."""
    made = fill(world.env, expired=3, stuck=1, remains=1)
    plain, guilded, twice = made.expired
    world.sql.execute("SELECT create_sandbox_schema(%s)", (twice.hex[:8],))
    world.sql.execute("INSERT INTO sandbox_guild_mapping VALUES ('1', %s), ('2', %s)", (guilded, guilded))
    world.redis.mset(
        {"sandbox:route:1": str(guilded), f"sandbox:{plain.hex}:x": 1, f"sandbox:{plain.hex[:8]}:x": 1}
    )
    world.sql.execute(
        "INSERT INTO sandbox_audit_log (sandbox_id, event_type, actor, details, created_at) VALUES"
        " (%s, 'sandbox_destroyed', 'liet', '{\"keysLeft\": true}', now() - interval '2 hours')",
        (made.remains[0],),
    )
    return [*made.expired, *made.stuck, *made.remains]


def anonymous(found: Dump, ids: Sequence[UUID]) -> list[str]:
    """Return all that is in a dump, with numbers instead of ids, the moments left out."""
    said = [
        *(f"row {row[:3]}" for row in found.rows),
        *(f"history {row}" for row in found.history),
        *(f"mapping {row}" for row in found.mappings),
        *(f"schema {name}" for name in found.schemas),
        *(f"key {name}" for name in found.keys),
    ]
    for number, id in enumerate(ids):
        for spelling in (str(id), id.hex, id.hex[:8]):
            said = [each.replace(spelling, f"#{number}") for each in said]
    return sorted(said)


def test_many_together_leave_exactly_what_one_by_one_leaves(world: World, works: Works) -> None:
    left = []
    for lot in (1, 10):
        ids = furnish(world)
        stays = fill(world.env, live=2)
        actions = works.propose()
        assert [action.verb for action in actions] == [CLEAN] * 5
        outcome = works.run(actions, pace=Pace(lot=lot), run=f"lot-{lot}")
        assert outcome.exit is Exit.HEALTHY, by_name(outcome)
        left.append(anonymous(seen(world), [*ids, *stays.live]))
        assert world.schemas() == {f"sandbox_{id}" for id in stays.live}
        assert {key.split(":")[1] for key in world.key_names()} == {str(id) for id in stays.live}
        world.wipe()
    assert left[0] == left[1]


def scans(world: World) -> int:
    """How many passes over the keyspace there were; while it is so small, each is one call."""
    return int(world.redis.info("commandstats").get("cmdstat_scan", {"calls": 0})["calls"])


def test_a_lot_takes_one_pass_over_redis_for_each_look_and_each_step(world: World, works: Works) -> None:
    fill(world.env, expired=8, remains=8, strangers=8)
    actions = works.propose()
    passes = []
    for verb in (CLEAN, SCHEMA, KEYS):
        world.redis.config_resetstat()
        mine = [action for action in actions if action.verb == verb][:8]
        assert works.run(mine, run=verb).exit is Exit.HEALTHY
        passes.append((verb, len(mine), scans(world)))
    world.redis.config_resetstat()
    undone = [replace(action, verb=f"undo {KEYS}") for action in mine]
    assert works.run(undone, run="undo", undoes=KEYS).exit is Exit.HEALTHY
    passes.append(("undo", 8, scans(world)))
    assert passes == [(CLEAN, 8, 1), (SCHEMA, 8, 1), (KEYS, 8, 4), ("undo", 8, 3)]


# ---- exactly the right ones


def test_of_a_lot_exactly_those_go_that_nobody_needs(world: World, works: Works) -> None:
    made = fill(world.env, expired=8, live=1)
    plain, extended, watched, held, locked, changed, gone, done = made.expired
    actions = works.propose()
    assert len(actions) == 8
    world.sql.execute(
        "UPDATE sandboxes SET status = 'running', expires_at = now() + interval '1 hour' WHERE id = %s",
        (extended,),
    )
    world.sql.execute("CREATE SCHEMA reporting")
    world.sql.execute(
        f'CREATE VIEW reporting.overview AS SELECT id FROM "sandbox_{watched}".profiles'.encode()
    )
    world.sql.execute("SELECT create_sandbox_schema(%s)", (changed.hex[:12],))
    world.sql.execute("DELETE FROM sandboxes WHERE id = %s", (gone,))
    works.run([action for action in actions if action.before["id"] == str(done)], run="r0")
    with session(world) as reader, session(world) as writer, session(world) as owner:
        reader.execute(f'SELECT FROM "sandbox_{held}".profiles'.encode())
        writer.execute("SELECT FROM sandboxes WHERE id = %s FOR UPDATE", (locked,))
        # The view is being changed: its definition cannot be read, which must not hold up the others.
        owner.execute("ALTER VIEW reporting.overview SET (security_barrier)")
        outcome = works.run(actions)
    names = {f"expired-{number}": id for number, id in enumerate(made.expired)}
    told = {names[name]: result for name, result in by_name(outcome).items()}
    assert told[plain] == (Phase.DONE, True, "nothing of it is left")
    assert told[done] == (Phase.SKIPPED, True, "already so: nothing of it is left")
    assert told[extended][2].startswith("it is running until ")
    assert told[watched][2] == f"in use: view reporting.overview rests on sandbox_{watched}"
    assert "holds AccessShareLock" in told[held][2]
    assert "holds its row" in told[locked][2]
    assert told[changed][2] == f"it has sandbox_{changed.hex[:12]} as well now"
    assert told[gone][2] == "its row is gone"
    skipped = {id for id, (phase, settled, _) in told.items() if (phase, settled) == (Phase.SKIPPED, False)}
    assert skipped == {extended, watched, held, locked, changed, gone}
    assert outcome.exit is Exit.PARTLY
    left = {*made.expired, *made.live} - {plain, done}
    assert world.schemas() == {*(f"sandbox_{id}" for id in left), f"sandbox_{changed.hex[:12]}"}
    assert {key.split(":")[1] for key in world.key_names()} == {str(id) for id in left}


def test_what_is_extended_after_the_last_look_stays_whole(world: World, works: Works) -> None:
    made = fill(world.env, expired=4)
    actions = works.propose()
    before = seen(world)

    def extend(number: int) -> None:
        if number == 1:  # nothing was begun, and all have been looked at
            lifecycle.extend(world.database, world.keys, "expired-1", HOUR, actor="liet", now=NOW)

    world.sql.execute(
        "UPDATE sandboxes SET created_at = now() - interval '30 hours', expires_at = now() - interval '1 hour'"
    )
    works.on_pause = extend
    outcome = works.run(actions)
    phase, _, reason = by_name(outcome)["expired-1"]
    assert (phase, reason) == (Phase.FAILED, "expired-1 is not over any more: it is running")
    assert sum(result.phase is Phase.DONE for result in outcome.results) == 3
    after = seen(world)
    assert after.schemas == {f"sandbox_{made.expired[1]}"}
    assert after.keys == {key for key in before.keys if str(made.expired[1]) in key}


def test_a_lock_on_one_schema_holds_up_neither_its_lot_nor_another(world: World, works: Works) -> None:
    made = fill(world.env, expired=8)
    actions = works.propose()
    with ExitStack() as ends:
        reader = ends.enter_context(session(world))

        def lock(number: int) -> None:
            if number == 1:  # after the look at who is in the way
                reader.execute(f'SELECT FROM "sandbox_{made.expired[7]}".profiles'.encode())

        works.on_pause = lock
        outcome = works.run(actions, pace=Pace(lot=4, failures=20))
        failed = [result for result in outcome.results if result.phase is Phase.FAILED]
        assert [result.action.resource.id for result in failed] == ["expired-7"]
        assert "SANDBOX_006" in failed[0].reason
        assert world.status(made.expired[7]) == "destroying"
        assert world.schemas() == {f"sandbox_{made.expired[7]}"}
        assert world.key_names() == set()
    again = works.run(actions)
    assert again.exit is Exit.HEALTHY
    assert world.schemas() == set()
    assert max(works.phases().values()) == 2  # begun twice, ended once
    assert all(count == 1 for (_, phase), count in works.phases().items() if phase is Phase.DONE)


def test_of_orphans_exactly_those_are_put_away_that_are_still_as_planned(world: World, works: Works) -> None:
    made = fill(world.env, remains=1, strangers=6)
    plain, used, touched, grown, written, claimed = made.strangers
    actions = works.propose()
    assert Counter(action.verb for action in actions) == {SCHEMA: 7, KEYS: 7}
    write_keys(world.env, [grown], keys=6)
    world.redis.get(f"sandbox:{touched}:session:0")
    world.sql.execute(f'INSERT INTO "sandbox_{written}".communities (name) VALUES (%s)'.encode(), ("c",))
    world.sql.execute("SELECT pg_stat_force_next_flush()")

    def claim(number: int) -> None:
        if number == 1:  # all have been looked at
            world.sql.execute(
                "INSERT INTO sandboxes (id, name, owner, status, schema_name, created_at, expires_at)"
                " VALUES (%s, 'claimed', 'liet', 'creating', %s, now(), now() + interval '1 hour')",
                (claimed, f"sandbox_{claimed}"),
            )

    works.on_pause = claim
    with session(world) as reader:
        reader.execute(f'SELECT FROM "sandbox_{used}".profiles'.encode())
        outcome = works.run(actions)
    told = {
        (result.action.verb, result.action.resource.id.removeprefix("sandbox_")): result
        for result in outcome.results
    }
    done = {what for what, result in told.items() if result.phase is Phase.DONE}
    assert done == {
        *((SCHEMA, str(id)) for id in (plain, grown, made.remains[0])),
        *((KEYS, str(id)) for id in (plain, written, made.remains[0])),
    }
    reasons = {what: result.reason for what, result in told.items() if what not in done}
    assert all("in use: " in reasons[verb, str(used)] for verb in (SCHEMA, KEYS))
    assert all(
        f"a key of sandbox:{touched} was used" in reasons[verb, str(touched)] for verb in (SCHEMA, KEYS)
    )
    assert reasons[KEYS, str(grown)] == "1 key was written since the plan"
    assert reasons[SCHEMA, str(written)] == "in use: 1 row was written since the plan"
    assert "claimed (creating)" in reasons[SCHEMA, str(claimed)]
    assert "claimed (creating)" in reasons[KEYS, str(claimed)]
    assert f"sandbox_{claimed}" in world.schemas()

    undone = [replace(action, verb=f"undo {action.verb}") for action in reversed(actions)
              if (action.verb, action.resource.id.removeprefix("sandbox_")) in done]  # fmt: skip
    assert works.run(undone, run="undo", undoes="r1").exit is Exit.HEALTHY
    assert not any(name.startswith("quarantine") for name in (*world.schemas(), *world.key_names()))


# ---- what dies meanwhile


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(2, id="before the routes", marks=pytest.mark.soak),
        pytest.param(3, id="before the keys"),
        pytest.param(4, id="before the drops", marks=pytest.mark.soak),
    ],
)
def test_redis_dying_in_the_middle_of_a_lot_leaves_rows_that_say_so_and_a_resume_finishes(
    world: World, works: Works, moment: int
) -> None:
    made = fill(world.env, expired=4)
    actions = works.propose()
    assert [works.world.status(id) for id in made.expired] == ["expired"] * 4
    with wired(world.env["REDIS_URL"]) as wire:
        works = works.through(wire.url)
        works.on_pause = lambda number: wire.cut() if number == moment else None
        outcome = works.run(actions)
        with world.database.snapshot() as snapshot:
            left = {row.id for row in registry.unfinished(snapshot)}
        assert left == (set(made.expired) if moment < 4 else set())
        assert {world.status(id) for id in made.expired} == {"destroyed"}
        assert world.schemas() == set()
        assert len(world.key_names()) == (20 if moment < 4 else 0)
        assert outcome.exit is (Exit.ERROR if moment < 4 else Exit.HEALTHY)
        assert all("its keys are left" in result.reason for result in outcome.results if not result.settled)
        wire.mend()
        assert works.run(actions).exit is Exit.HEALTHY
    assert world.key_names() == set()
    with world.database.snapshot() as snapshot:
        assert registry.unfinished(snapshot) == []
    ended = Counter(world.events(id).count("sandbox_destroying") for id in made.expired)
    assert ended == {1: 4}


@pytest.mark.soak
def test_redis_dying_while_families_are_parked_loses_no_key_and_a_resume_parks_the_rest(
    world: World, works: Works
) -> None:
    fill(world.env, strangers=6, schemas=False)
    before = world.key_names()
    actions = works.propose()
    with wired(world.env["REDIS_URL"]) as wire:
        works = works.through(wire.url)
        works.on_pause = lambda number: wire.cut() if number == 4 else None
        outcome = works.run(actions)
        assert outcome.exit is not Exit.HEALTHY
        parked = {key for key in world.key_names() if key.startswith("quarantine:")}
        assert len(parked) == 15
        assert {key.split(":", 2)[2] for key in parked} | (world.key_names() - parked) == before
        wire.mend()
        again = works.run(actions)
    assert again.exit is Exit.HEALTHY, by_name(again)
    assert all(key.startswith("quarantine:") for key in world.key_names())


@pytest.mark.parametrize(
    ("moment", "cost"),
    [(1, 0), (3, 4), pytest.param(5, 1, marks=pytest.mark.soak), pytest.param(9, 1, marks=pytest.mark.soak)],
    ids=["all taken together", "the routes", "the first one dropped", "the third one dropped"],
)
def test_a_database_session_that_is_killed_costs_its_own_target_at_most(
    world: World, works: Works, moment: int, cost: int
) -> None:
    """What could not be taken together is taken one by one; without the routes nobody could say that we still hold the lease."""
    fill(world.env, expired=4)
    actions = works.propose()

    def kill(_: SqlTransaction, number: int) -> None:
        if number == moment:
            world.sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE state = 'idle in transaction' AND strpos(query, %s) > 0",
                (TAG,),
            )

    works.on_fence = kill
    outcome = works.run(actions)
    unsettled = [result.reason for result in outcome.results if not result.settled]
    assert len(unsettled) == cost, unsettled
    assert {world.status(UUID(action.before["id"])) for action in actions} <= {
        "expired",
        "destroying",
        "destroyed",
    }
    again = works.run(actions)
    assert again.exit is Exit.HEALTHY, by_name(again)
    assert (world.schemas(), world.key_names()) == (set(), set())
    ends = Counter(world.events(UUID(action.before["id"])).count("sandbox_destroyed") for action in actions)
    assert set(ends) <= ({1, 2} if moment == 3 else {1})  # keys that were left are settled by a second one
    done = Counter(name for name, phase in works.phases() if phase is Phase.DONE)
    assert done == {action.id: 1 for action in actions}


def steal(world: World) -> None:
    """Take the lease over, as another operator does who finds its holder silent."""
    world.sql.execute("UPDATE runbooks.lease SET holder = 'liet on elsewhere', token = token + 1")


def stop(world: World) -> None:
    """Raise an emergency stop."""
    with world.database.transaction() as transaction:
        stops.raise_stop(transaction, id="stop-1", by="liet", reason="", halting=True, parts={}, over={})


def go_on(world: World) -> None:
    """Let everybody go on again."""
    world.sql.execute("UPDATE runbooks.lease SET holder = NULL")
    with world.database.transaction() as transaction:
        stops.lower(transaction, id="stop-1")


@pytest.mark.parametrize(
    ("halt", "moment"),
    [
        pytest.param(
            halt, moment, marks=() if (halt, moment) in ((steal, 2), (stop, 4)) else pytest.mark.soak
        )
        for halt in (steal, stop)
        for moment in (1, 2, 3, 4, 6)
    ],
)
def test_who_may_not_go_on_touches_nothing_more_and_whoever_resumes_finishes(
    world: World, works: Works, halt: Callable[[World], None], moment: int
) -> None:
    fill(world.env, expired=4, strangers=3)
    actions = works.propose()
    halted = list[Dump]()

    def at(number: int) -> None:
        if number == moment:
            halt(world)
            halted.append(seen(world))

    works.on_pause = at
    outcome = works.run(actions, pace=Pace(lot=4, failures=99))
    assert seen(world) == halted[0]
    assert outcome.exit in (Exit.ERROR, Exit.PARTLY)
    waiting = [result for result in outcome.results if result.phase is None]
    assert len(waiting) == 6  # no other lot was begun
    go_on(world)
    again = works.run(actions)
    assert again.exit is Exit.HEALTHY, by_name(again)
    assert {name for name in world.schemas() if not name.startswith("quarantine")} == set()
    done = Counter(name for name, phase in works.phases() if phase is Phase.DONE)
    assert done == {action.id: 1 for action in actions}
    assert all(
        len(world.events(UUID(action.before["id"]))) <= 3 for action in actions if action.verb == CLEAN
    )


# ---- by the thousand


@pytest.mark.soak
def test_hundreds_of_schemas_are_looked_at_without_filling_the_table_of_locks(
    world: World, works: Works
) -> None:
    """Reading a schema's rows takes some 15 locks; the table has room for 6,400, and all sessions share it."""
    made = fill(world.env, strangers=700, keys=0)
    names = [f"sandbox_{id}" for id in made.strangers]
    world.sql.execute("CREATE SCHEMA reporting")
    for view, of in (("first", names[:1]), ("last", names[-1:]), ("two", [names[0], names[-1]])):
        read = " UNION ALL ".join(f'SELECT id FROM "{name}".profiles' for name in of)
        world.sql.execute(f"CREATE VIEW reporting.{view} AS {read}".encode())
    for name in names:
        world.sql.execute(f'INSERT INTO "{name}".communities (name) VALUES (%s)'.encode(), ("c",))
    dated = schemas.last_activity(world.database, names)
    assert all(dated[name] for name in names)
    with world.database.snapshot() as snapshot:
        resting = schemas.dependents(snapshot, names)
        order = [each.name for each in schemas.blockers(snapshot, names)]
    assert {name: set(found) for name, found in resting.items()} == {
        names[0]: {"view reporting.first", "view reporting.two"},
        names[-1]: {"view reporting.last", "view reporting.two"},
    }
    assert sorted(order) == sorted([*["reporting.two"] * 2, "reporting.first", "reporting.last"])
