"""The remedies where a clean-up was switched off: nothing without the lease, nothing twice, nothing but what was planned."""

import json
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import psycopg
import pytest
from botocore import handlers  # type: ignore[import-untyped, unused-ignore]

from diagnostics.stack import Stack
from lab import control
from runbooks import rb_sb_001
from runbooks.engine.environment import resolve
from runbooks.engine.errors import LeaseHeld
from runbooks.engine.gate import Gate
from runbooks.engine.lease import Lease, holder
from runbooks.engine.model import Action, Remedy, State
from runbooks.engine.systems import Readers, Writers, readers, writers
from runbooks.overdue import cleaning
from runbooks.overdue.evidence import Evidence
from runbooks.remedies import remedies
from runbooks.remedies.task import ORPHANS
from sandbox.errors import ArrakisError, Denied
from tests.conftest import StartLab
from tests.waiting import eventually

RULE = FAMILY = "arrakis-sandbox-cleanup"
CONTAINER, CLUSTER, VIEW = "sandbox-cleanup", "arrakis", "watching.overview"
CLEAN, DROP, ENABLE, RUN = "clean up sandbox", "drop object", "enable rule", "run clean-up task"
ROLES = ("taskRoleArn", "executionRoleArn")
NOT_STARTED = {"tasks": [], "failures": [{"arn": "…", "reason": "RESOURCE:FARGATE"}]}
LOST = "the lease is not ours any more"


class Wire:
    """Between the remedies and AWS: what they asked it to change, with the lease held or not; says answers in its place."""

    def __init__(self, database_url: str) -> None:
        self.changes: list[tuple[str, bool]] = []
        self.params: list[dict[str, Any]] = []
        self._answers: dict[str, deque[str | Mapping[str, Any]]] = defaultdict(deque)
        self._database_url = database_url

    def say(self, operation: str, *answers: str | Mapping[str, Any]) -> None:
        """Prepare the next answers of an operation: a response, or an error's code."""
        self._answers[operation] += answers

    def note(self, *, model: Any, params: dict[str, Any], **_: Any) -> None:
        """Remember a call that changes something."""
        if not model.name.startswith(("Describe", "Filter", "Get", "List")):
            self.changes.append((model.name, self._leased()))
            self.params.append(dict(params))

    def answer(self, *, model: Any, **_: Any) -> tuple[Any, dict[str, Any]] | None:
        """Say what was prepared, or let the call pass."""
        if not self._answers[model.name]:
            return None
        answer = self._answers[model.name].popleft()
        if isinstance(answer, str):
            error = {"Error": {"Code": answer, "Message": "said the wire"}, "ResponseMetadata": {}}
            return SimpleNamespace(status_code=400), error
        return SimpleNamespace(status_code=200), {**answer, "ResponseMetadata": {}}

    def reset(self) -> None:
        """Forget everything."""
        for each in (self.changes, self.params, self._answers):
            each.clear()

    def _leased(self) -> bool:
        """Whether nobody could take the lease over just now."""
        with psycopg.connect(self._database_url) as connection:
            try:
                connection.execute("SELECT FROM runbooks.lease FOR UPDATE NOWAIT")
            except psycopg.errors.LockNotAvailable:
                return True
        return False


class Scene:
    """A lab, its systems, and the lease; what a test does to AWS by itself does not pass the wire."""

    def __init__(
        self, env: Mapping[str, str], wire: Wire, clients: Mapping[str, Any], systems: tuple[Readers, Writers]
    ) -> None:
        self.env, self.wire = env, wire
        self.ecs, self.events, self.logs = (clients[name] for name in ("ecs", "events", "logs"))
        self.targets = self.events.list_targets_by_rule(Rule=RULE)["Targets"]
        self._read, self._write = systems
        self._plans = count(1)

    @contextmanager
    def leased(self) -> Iterator["Scene"]:
        """Hold the lease."""
        with Lease.held(self._write.sql, holder=holder("chani"), run="run-1") as self._lease:
            yield self

    def remedy(self, verb: str, tell: Callable[[str], None] = lambda _: None) -> Remedy:
        """Return a remedy that works under the lease."""
        gate = Gate(read=self._read, write=self._write, fence=self._lease.fence, tell=tell)
        return remedies(gate)[verb]

    def gather(self, *, rule: str = RULE, ago: timedelta = timedelta()) -> Evidence:
        """See what there is."""
        return rb_sb_001.gather(
            self._read, now=datetime.now(UTC) - ago, deadline=20, stack=Stack(cleanup_rule=rule)
        )

    def propose(self, evidence: Evidence, verb: str, *objects: str) -> Action:
        """Return the first action of a verb; the task's token is the plan's own."""
        runbook, via = f"plan-{next(self._plans)}", "ecs" if verb == RUN else "library"
        actions, _ = cleaning.propose(evidence, runbook=runbook, via=via, objects=objects)
        return next(action for action in actions if action.verb == verb)

    def plan(self, verb: str) -> Action:
        """Return the first action of a verb that is proposed now."""
        return self.propose(self.gather(), verb)

    def sql(self, query: str, *params: object) -> list[tuple[Any, ...]]:
        """Run a statement."""
        with psycopg.connect(self.env["DATABASE_URL"]) as connection:
            cursor = connection.execute(query.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def overdue(self) -> str:
        """Give a sandbox that has none a schema, and let it be over for forty minutes; return its id."""
        [(id, _)] = self.sql(
            """UPDATE sandboxes SET expires_at = now() - interval '40 minutes' WHERE id = (SELECT id FROM sandboxes
            WHERE status = 'running' AND to_regnamespace(quote_ident(schema_name)) IS NULL ORDER BY id LIMIT 1)
            RETURNING id::text, create_sandbox_schema(id::text)"""
        )
        return str(id)

    @contextmanager
    def holding(self, id: str) -> Iterator[psycopg.Connection]:
        """Hold a sandbox's row in a transaction; the task awaits it for two seconds."""
        with psycopg.connect(self.env["DATABASE_URL"]) as connection:
            connection.execute("SELECT FROM sandboxes WHERE id = %s FOR UPDATE", (id,))
            yield connection

    def blocks(self, connection: psycopg.Connection) -> bool:
        """Whether somebody waits for what a session holds."""
        pid = connection.info.backend_pid
        return bool(self.sql("SELECT 1 FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))", pid))

    @contextmanager
    def taken_over(self) -> Iterator[None]:
        """Let somebody else have the lease."""
        self.sql("UPDATE runbooks.lease SET token = token + 1")
        yield
        self.sql("UPDATE runbooks.lease SET token = token - 1")

    def state(self) -> str:
        """Whether the rule is ENABLED or DISABLED."""
        return str(self.events.describe_rule(Name=RULE)["State"])

    def tasks(self) -> list[dict[str, Any]]:
        """Return the clean-up's tasks, those that ended too."""
        listed = [
            self.ecs.list_tasks(cluster=CLUSTER, family=FAMILY, desiredStatus=status)["taskArns"]
            for status in ("RUNNING", "STOPPED")
        ]
        arns = sorted({*listed[0], *listed[1]})
        found: list[dict[str, Any]] = []
        if arns:
            found = self.ecs.describe_tasks(cluster=CLUSTER, tasks=arns)["tasks"]
        return found

    def id_of(self, planned: Action) -> str:
        """Return the id of the one task that a plan started."""
        [task] = [task for task in self.tasks() if task["startedBy"] == planned.before["token"]]
        return str(task["taskArn"].rpartition("/")[2])

    def logged(self, task: str) -> list[dict[str, Any]]:
        """Return the JSON lines that a task wrote."""
        found = self.logs.get_log_events(
            logGroupName=f"/ecs/{FAMILY}", logStreamName=f"ecs/{CONTAINER}/{task}", startFromHead=True
        )
        lines = [event["message"] for event in found["events"]]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def define(self, **variables: str) -> None:
        """Let the task have other variables from now on."""
        current = self.ecs.describe_task_definition(taskDefinition=FAMILY)["taskDefinition"]
        [container] = current["containerDefinitions"]
        pairs = {pair["name"]: pair["value"] for pair in container["environment"]} | variables
        container["environment"] = [{"name": name, "value": value} for name, value in pairs.items()]
        kept = {
            name: current[name] for name in ("family", "requiresCompatibilities", "cpu", "memory", *ROLES)
        }
        self.ecs.register_task_definition(**kept, containerDefinitions=[container])

    def put_target(self, more: Mapping[str, Any] | None = None, **parameters: Any) -> None:
        """Let the rule start its task in another way."""
        [target] = self.targets
        changed = {**target["EcsParameters"], **parameters}
        self.events.put_targets(Rule=RULE, Targets=[{**target, **(more or {}), "EcsParameters": changed}])


@pytest.fixture(scope="module")
def opened(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Return a lab whose clean-up was switched off, with the lease taken."""
    lab: control.Lab = start_lab("rule-disabled")
    home: Path = tmp_path_factory.mktemp("state")
    wire = Wire(lab.env["DATABASE_URL"])
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        for name, value in lab.env.items():
            patch.setenv(name, value)
        own = boto3.session.Session()
        clients = {name: own.client(name) for name in ("ecs", "events", "logs")}
        ours = [("before-parameter-build", wire.note), ("before-call", wire.answer)]
        patch.setattr(handlers, "BUILTIN_HANDLERS", [*handlers.BUILTIN_HANDLERS, *ours])
        environment = resolve(None, lab.env, home, home)
        read = readers(environment, tag="tests:remedies", timeout=5)
        write = writers(environment, tag="tests:remedies", actor="chani", timeout=5)
        with Scene(lab.env, wire, clients, (read, write)).leased() as scene:
            yield scene


@pytest.fixture
def scene(opened: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Return the lab with its rule disabled, nothing on the wire, and a watch in a hurry."""
    for name, seconds in {"_POLL": 0.05, "_LONGEST_POLL": 0.05, "_PATIENCE": 20}.items():
        monkeypatch.setattr(f"runbooks.remedies.task.{name}", seconds)
    opened.events.disable_rule(Name=RULE)
    opened.put_target()
    opened.wire.reset()
    yield opened
    eventually(lambda: all(task["lastStatus"] == "STOPPED" for task in opened.tasks()))


@pytest.fixture
def misdirected(scene: Scene) -> Iterator[Scene]:
    """Return the lab with a task that looks for its database where none is."""
    scene.define(DATABASE_URL="postgresql://lab@127.0.0.1:1/arrakis")
    yield scene
    scene.define(DATABASE_URL=scene.env["DATABASE_URL"])


@pytest.fixture
def orphaning(scene: Scene) -> Iterator[Callable[[], None]]:
    """Return how to tell the task to clean up orphans too."""
    yield lambda: scene.define(CLEANUP_ORPHANED="true")
    scene.define(CLEANUP_ORPHANED="false")


@pytest.fixture
def viewed(scene: Scene) -> Iterator[Scene]:
    """Return the lab with a view elsewhere that rests on a sandbox that is over."""
    scene.sql("CREATE SCHEMA watching")
    scene.sql(f'CREATE VIEW {VIEW} AS SELECT id FROM "sandbox_{scene.overdue()}".profiles')
    yield scene
    scene.sql("DROP SCHEMA watching CASCADE")


# ---- the lease


@pytest.mark.parametrize(("verb", "step"), [(ENABLE, "apply"), (ENABLE, "revert"), (RUN, "apply")])
def test_aws_is_asked_to_change_nothing_once_the_lease_is_lost(scene: Scene, verb: str, step: str) -> None:
    scene.overdue()
    planned = scene.plan(verb)
    if step == "revert":
        scene.events.enable_rule(Name=RULE)
    before = (scene.state(), len(scene.tasks()))
    with scene.taken_over(), pytest.raises(LeaseHeld, match=LOST):
        getattr(scene.remedy(verb), step)(planned)
    assert (scene.state(), len(scene.tasks())) == before
    assert scene.wire.changes == []


def test_an_object_is_dropped_only_under_the_lease_and_as_it_was_planned(viewed: Scene) -> None:
    planned = viewed.propose(viewed.gather(), DROP, VIEW)
    remedy = viewed.remedy(DROP)
    with viewed.taken_over(), pytest.raises(LeaseHeld, match=LOST):
        remedy.apply(planned)
    viewed.sql(f"ALTER VIEW {VIEW} RENAME id TO number")
    with pytest.raises(ArrakisError, match=f"view {VIEW} was replaced since the plan"):
        remedy.apply(planned)
    assert viewed.sql("SELECT to_regclass(%s) IS NOT NULL", VIEW) == [(True,)]


# ---- what cannot be undone, and who is in the way


@pytest.mark.parametrize(
    ("verb", "reason"),
    [
        (CLEAN, "was taken away for good"),
        (DROP, f"{VIEW} was dropped"),
        (RUN, "what the task took away is gone for good"),
    ],
)
def test_what_cannot_be_undone_says_so(viewed: Scene, verb: str, reason: str) -> None:
    planned = viewed.propose(viewed.gather(), verb, VIEW)
    with pytest.raises(ArrakisError, match=reason):
        viewed.remedy(verb).revert(planned)


def test_who_holds_the_row_of_a_sandbox_uses_it(scene: Scene) -> None:
    scene.overdue()
    planned, remedy = scene.plan(CLEAN), scene.remedy(CLEAN)
    assert remedy.in_use(planned) is None
    with scene.holding(planned.before["id"]) as connection:
        held = f"session {connection.info.backend_pid} of lab holds its row in public.sandboxes"
        assert remedy.in_use(planned) == held


@pytest.mark.parametrize("verb", [ENABLE, RUN])
def test_a_job_that_would_take_along_what_is_not_a_sandboxs_is_not_let_loose(
    viewed: Scene, verb: str
) -> None:
    planned = viewed.propose(viewed.gather(), verb, VIEW)
    assert viewed.remedy(verb).in_use(planned) == f"its CASCADE would take along view {VIEW}"


@pytest.mark.parametrize("verb", [ENABLE, RUN])
def test_a_job_that_is_told_since_the_plan_to_take_orphans_is_not_let_loose(
    orphaning: Callable[[], None], scene: Scene, verb: str
) -> None:
    scene.overdue()
    planned, remedy = scene.plan(verb), scene.remedy(verb)
    assert remedy.in_use(planned) is None
    orphaning()
    assert remedy.in_use(planned) == ORPHANS


def test_one_that_is_told_so_just_before_it_is_started_is_not_started(
    orphaning: Callable[[], None], scene: Scene
) -> None:
    scene.overdue()
    planned, remedy = scene.plan(RUN), scene.remedy(RUN)
    orphaning()
    with pytest.raises(ArrakisError, match=re.escape(ORPHANS)):
        remedy.apply(planned)
    assert scene.wire.changes == []


def test_a_task_without_a_definition_is_told_of_and_neither_planned_nor_run(scene: Scene) -> None:
    scene.overdue()
    planned = scene.plan(RUN)
    scene.put_target(TaskDefinitionArn=f"{FAMILY}:99")
    evidence = scene.gather()
    assert evidence.gone == (f"{FAMILY}:99",)
    assert RUN not in {each.verb for each in cleaning.propose(evidence, runbook="x", via="ecs")[0]}
    with pytest.raises(ArrakisError, match="does not start this task any more"):
        scene.remedy(RUN).apply(planned)
    assert scene.wire.changes == []


# ---- the schedule


def test_a_rule_is_enabled_and_disabled_again_under_the_lease(scene: Scene) -> None:
    planned, remedy = scene.plan(ENABLE), scene.remedy(ENABLE)
    assert (remedy.observe(planned).state, scene.state()) == (State.BEFORE, "DISABLED")
    remedy.apply(planned)
    assert (remedy.observe(planned).state, scene.state()) == (State.AFTER, "ENABLED")
    remedy.revert(planned)
    assert (remedy.observe(planned).state, scene.state()) == (State.BEFORE, "DISABLED")
    assert scene.wire.changes == [("EnableRule", True), ("DisableRule", True)]
    assert scene.events.list_targets_by_rule(Rule=RULE)["Targets"] == scene.targets


def test_a_rule_that_was_deleted_has_changed(scene: Scene) -> None:
    scene.events.put_rule(Name="spare", ScheduleExpression="rate(15 minutes)", State="DISABLED")
    planned = scene.propose(scene.gather(rule="spare"), ENABLE)
    scene.events.delete_rule(Name="spare")
    seen = scene.remedy(ENABLE).observe(planned)
    assert (seen.state, seen.reason) == (State.CHANGED, "there is no such rule any more")


# ---- the task


def test_the_task_runs_once_says_all_it_can_and_is_watched_to_its_end(scene: Scene) -> None:
    """One more that is over, and extended while the task waits for its row, is what the task tells in debug mode only."""
    gone, told = scene.overdue(), list[str]()
    planned, remedy = scene.plan(RUN), scene.remedy(RUN, told.append)
    extended, number = scene.overdue(), len(planned.before["sandboxes"])
    seen = remedy.observe(planned)
    assert (seen.state, seen.reason) == (State.BEFORE, "it was not started")
    with ThreadPoolExecutor(1) as pool, scene.holding(extended) as connection:
        applying = pool.submit(remedy.apply, planned)
        eventually(lambda: scene.blocks(connection))
        later = "UPDATE sandboxes SET expires_at = now() + interval '1 hour' WHERE id = %s"
        connection.execute(later, (extended,))
        connection.commit()
        applying.result(timeout=20)
    task = scene.id_of(planned)
    seen = remedy.observe(planned)
    ended = f"task {task} ended; {number} of {number} sandboxes are gone"
    assert (seen.state, seen.reason, seen.evidence["task"]) == (State.AFTER, ended, task)
    assert scene.sql("SELECT status::text FROM sandboxes WHERE id = %s", gone) == [("destroyed",)]
    debug = [(line["msg"], line["sandboxId"]) for line in scene.logged(task) if line.get("level") == 20]
    assert debug == [("Sandbox is not due any more", extended)]
    assert told[-1] == f"  {FAMILY}: RUNNING"
    assert len(told) == len(set(told))  # a status is told when it changes, not with each look
    remedy.apply(planned)
    assert scene.wire.changes == [("RunTask", True)]
    aged = replace(planned, before={**planned.before, "planned_at": "2020-01-01T00:00:00+00:00"})
    assert remedy.observe(aged).state is State.AFTER  # ECS still tells


@pytest.mark.soak
def test_a_watch_that_breaks_off_finds_its_task_again(scene: Scene) -> None:
    id, told, evidence = scene.overdue(), list[str](), scene.gather()
    planned, other = scene.propose(evidence, RUN), scene.propose(evidence, RUN)

    def tell(line: str) -> None:
        if not told:
            scene.wire.say("ListTasks", "ServerException", "AccessDeniedException")
        told.append(line)

    remedy = scene.remedy(RUN, tell)
    with scene.holding(id):
        with pytest.raises(Denied, match="AWS refused ecs:list_tasks"):
            remedy.apply(planned)
        assert told[1].startswith(f"  {FAMILY}: cannot tell: AWS ecs:list_tasks: ServerException")
        task, seen = scene.id_of(planned), remedy.observe(planned)
        assert (seen.state, seen.evidence) == (State.PARTLY, {"task": task})
        assert remedy.in_use(planned) is None
        assert str(remedy.in_use(other)).startswith(f"task {task} is ")
    remedy.apply(planned)
    assert remedy.observe(planned).state is State.AFTER
    assert remedy.in_use(other) is None
    assert scene.wire.changes == [("RunTask", True)]


@pytest.mark.soak
def test_a_task_that_fails_is_seen_to_its_end_however_often_that_takes(
    misdirected: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    misdirected.overdue()
    planned, remedy = misdirected.plan(RUN), misdirected.remedy(RUN)
    with monkeypatch.context() as hurried:
        hurried.setattr("runbooks.remedies.task._PATIENCE", 0)
        with pytest.raises(ArrakisError, match="the task has not ended within 0 minutes"):
            remedy.apply(planned)
    remedy.apply(planned)
    seen = remedy.observe(planned)
    names = planned.before["sandboxes"].values()
    assert seen.state is State.CHANGED
    assert f"task {misdirected.id_of(planned)} {CONTAINER} exited with 1 (Essential" in seen.reason
    assert f"0 of {len(names)} sandboxes are gone, still there: {', '.join(names)}" in seen.reason
    assert misdirected.wire.changes == [("RunTask", True)]


@pytest.mark.soak
def test_a_task_that_ends_well_and_leaves_one_has_not_done_what_was_planned(scene: Scene) -> None:
    id = scene.overdue()
    planned, remedy = scene.plan(RUN), scene.remedy(RUN)
    scene.sql("UPDATE sandboxes SET expires_at = now() + interval '1 hour' WHERE id = %s", id)
    remedy.apply(planned)
    seen, number, name = (
        remedy.observe(planned),
        len(planned.before["sandboxes"]),
        planned.before["sandboxes"][id],
    )
    left = (
        f"task {scene.id_of(planned)} ended; {number - 1} of {number} sandboxes are gone, still there: {name}"
    )
    assert (seen.state, seen.reason) == (State.CHANGED, left)


def test_a_task_that_ecs_does_not_start_says_why(scene: Scene) -> None:
    scene.overdue()
    planned, remedy = scene.plan(RUN), scene.remedy(RUN)
    scene.wire.say("RunTask", NOT_STARTED)
    with pytest.raises(ArrakisError, match="ECS did not start the task: RESOURCE:FARGATE"):
        remedy.apply(planned)
    assert remedy.observe(planned).state is State.BEFORE


def test_the_task_is_started_as_its_rule_has_it_now_and_the_plan_keeps_no_secret(scene: Scene) -> None:
    def hand_over(secret: str) -> None:
        environment = [{"name": "LOG_LEVEL", "value": "error"}, {"name": "API_KEY", "value": secret}]
        own = {"cpu": "512", "containerOverrides": [{"name": CONTAINER, "environment": environment}]}
        scene.put_target({"Input": json.dumps(own)}, PlatformVersion="1.4.0")

    scene.overdue()
    hand_over("hidden")
    planned = scene.plan(RUN)
    assert "hidden" not in repr(planned)
    scene.wire.say("RunTask", NOT_STARTED)
    with pytest.raises(ArrakisError, match="RESOURCE:FARGATE"):
        scene.remedy(RUN).apply(planned)
    environment = [{"name": "API_KEY", "value": "hidden"}, {"name": "LOG_LEVEL", "value": "debug"}]
    before = planned.before
    newest = scene.ecs.describe_task_definition(taskDefinition=FAMILY)["taskDefinition"]
    assert scene.wire.params == [
        {
            "cluster": before["cluster"],
            "taskDefinition": newest["taskDefinitionArn"],  # with the revision that was looked at
            "count": 1,
            "startedBy": before["token"],
            "clientToken": before["token"],
            "launchType": "FARGATE",
            "platformVersion": "1.4.0",
            "networkConfiguration": before["network"],
            "overrides": {
                "cpu": "512",
                "containerOverrides": [{"name": CONTAINER, "environment": environment}],
            },
        }
    ]


@pytest.mark.parametrize("what", ["definition", "cluster", "network", "overrides", "target", "rule"])
def test_a_rule_that_starts_something_else_since_the_plan_is_refused(scene: Scene, what: str) -> None:
    scene.overdue()
    planned = scene.plan(RUN)
    [target] = scene.targets
    if what == "definition":
        scene.put_target(TaskDefinitionArn=target["EcsParameters"]["TaskDefinitionArn"] + ":1")
    if what == "overrides":
        scene.put_target(
            {"Input": json.dumps({"containerOverrides": [{"name": CONTAINER, "command": ["sh"]}]})}
        )
    if what == "cluster":
        scene.put_target({"Arn": target["Arn"] + "-blue"})
    if what == "network":
        network = target["EcsParameters"]["NetworkConfiguration"]["awsvpcConfiguration"]
        elsewhere = {"awsvpcConfiguration": {**network, "SecurityGroups": ["sg-0"]}}
        scene.put_target(NetworkConfiguration=elsewhere)
    if what == "target":
        scene.events.remove_targets(Rule=RULE, Ids=[target["Id"]])
    if what == "rule":
        planned = replace(planned, before={**planned.before, "rule": "gone"})
    with pytest.raises(ArrakisError, match="does not start this task any more"):
        scene.remedy(RUN).apply(planned)
    assert scene.wire.changes == []


@pytest.mark.parametrize(
    ("minutes", "state", "reason"),
    [
        (50, State.BEFORE, "it was not started"),
        (60, State.CHANGED, "cannot tell whether it ran: ECS forgets a task within the hour"),
    ],
)
def test_whether_a_task_ran_can_be_told_for_an_hour(
    scene: Scene, minutes: int, state: State, reason: str
) -> None:
    scene.overdue()
    planned = scene.propose(scene.gather(ago=timedelta(minutes=minutes)), RUN)
    seen = scene.remedy(RUN).observe(planned)
    assert (seen.state, seen.reason) == (state, reason)
