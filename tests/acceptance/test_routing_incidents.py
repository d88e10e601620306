"""Every incident on the way that events take: named first, mended as far as that is safe, and gone when looked at again."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import redis

from lab import control
from runbooks.engine import systems
from runbooks.engine.apply import Outcome
from runbooks.engine.environment import resolve
from runbooks.engine.errors import Exit
from runbooks.engine.model import Finding, Reversibility, Severity
from runbooks.engine.operate import Diagnosis, Operator
from runbooks.rb_sb_004 import RUNBOOK
from sandbox.adapters.nats import Nats
from sandbox.routes import NOWHERE, key_of
from sandbox.streams import Condition, Config, check, expected_consumers, expected_streams
from tests.acceptance.engineer import Engineer
from tests.conftest import StartLab, follow

STALE = "routes of 5 guilds are wrong: 1 leads to another sandbox than the table says, 2 lead to a sandbox that is gone, 2"
MISSING = "cause: stream SANDBOX is missing"
WRONG_ROUTE = "cause: the cached routes of 1 guild are wrong"


class Scene:
    """A lab in which one incident follows another, and an operator at work in it."""

    def __init__(self, lab: control.Lab, folder: Path) -> None:
        self.lab = lab
        self.engineer = Engineer(lab, folder / "engineer")
        self.nats = Nats(lab.env["NATS_URL"])
        self.said: list[str] = []
        environment = resolve(None, lab.env, folder, folder)
        self.operator = Operator(environment, timeout=10, progress=lambda *_: None, tell=self.said.append)

    def lay_out(self, incident: str) -> None:
        self.lab = follow(self.lab, incident)

    def relieve(self, incident: str) -> None:
        self.lab = control.relieve(self.lab, incident)

    def diagnose(self, **about: str) -> Diagnosis:
        return self.operator.diagnose(RUNBOOK, about=about)

    def apply(self, found: Diagnosis) -> Outcome:
        assert found.plan is not None
        many = len(found.plan.actions)
        return self.operator.apply(found.plan, RUNBOOK, ask=lambda *_: None, max_targets=many)

    def see_that_all_is_well(self) -> None:
        found = self.diagnose()
        assert [each.summary for each in found.findings if each.severity is not Severity.OK] == []
        assert (found.exit, found.plan) == (Exit.HEALTHY, None)


@pytest.fixture(scope="module")
def scene(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    lab = start_lab("routes-stale")  # the first of them lays out the world
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lab.env.items():
            patch.setenv(name, value)
        # AWS clients cost most of a diagnosis: made once.
        for module, made in (
            ("operate", systems.readers),
            ("runner", systems.readers),
            ("runner", systems.writers),
        ):
            patch.setattr(f"runbooks.engine.{module}.{made.__name__}", cache(made))
        yield Scene(lab, tmp_path_factory.mktemp("state"))


def causes(found: Diagnosis) -> list[str]:
    """The causes, which come first; nothing else is critical but the alarm, and hops where one asked for them."""
    count = next(n for n, each in enumerate([*found.findings, None]) if not each or each.check != "cause")
    others = [each for each in found.findings[count:] if each.severity is Severity.CRITICAL]
    assert {each.check for each in others} <= {"alarm", "hop"}, others
    return [each.summary for each in found.findings[:count]]


def verbs(found: Diagnosis) -> list[tuple[str, str]]:
    """What is proposed."""
    return [(each.verb, each.resource.kind) for each in found.plan.actions] if found.plan else []


def routed(outcome: Outcome) -> bool:
    """Whether all was done, and events were seen to be routed then."""
    assert [result.reason for result in outcome.results if not result.settled] == []
    first: Finding = outcome.outlook[0]
    return (first.check, first.severity) == ("routing", Severity.OK)


def test_stale_routes_are_deleted_and_the_loop_that_they_made_ends(scene: Scene) -> None:
    found = scene.diagnose()
    [cause] = causes(found)
    assert STALE in cause
    assert any("circle" in detail for detail in found.findings[0].evidence["details"])
    assert verbs(found) == [("delete route", "route")] * 5
    assert routed(scene.apply(found))
    scene.see_that_all_is_well()
    scene.relieve("routes-stale")


@pytest.mark.soak
def test_a_missing_stream_and_a_wrong_route_are_both_named_and_both_mended(scene: Scene) -> None:
    scene.relieve("routes-stale")
    scene.lay_out("stream-missing")
    assert causes(scene.diagnose()) == [MISSING]
    with redis.Redis.from_url(scene.lab.env["REDIS_URL"]) as client:
        guild = next(iter(client.scan_iter("sandbox:route:*"))).decode().rpartition(":")[2]
        client.set(key_of(guild), NOWHERE)
        found = scene.diagnose()
        first, second = causes(found)
        assert first == MISSING
        assert second.startswith(WRONG_ROUTE)
        assert verbs(found) == [
            ("create stream", "stream"),
            ("create consumer", "consumer"),
            ("delete route", "route"),
        ]
        assert routed(scene.apply(found))
        assert client.get(key_of(guild)) != NOWHERE.encode()
    expected: list[Config] = [*expected_streams(), *expected_consumers()]
    assert {each.condition for each in check(scene.nats, expected)} == {Condition.AS_EXPECTED}
    scene.relieve("stream-missing")
    scene.see_that_all_is_well()


@pytest.mark.soak
def test_a_drifted_stream_loses_a_canary_until_it_is_corrected(scene: Scene) -> None:
    scene.relieve("routes-stale")
    scene.lay_out("stream-drifted")
    found = scene.diagnose()
    [cause] = causes(found)
    assert cause == "cause: stream SANDBOX: it does not take sandbox.>, but sandbox.*.events.guild.>"
    fields = found.plan.actions[0].before["fields"] if found.plan else []
    assert (verbs(found), fields) == ([("correct stream", "stream")], ["subjects", "max_age", "max_msgs"])
    with redis.Redis.from_url(scene.lab.env["REDIS_URL"]) as client:
        guild = next(iter(client.scan_iter("sandbox:route:*"))).decode().rpartition(":")[2]

    def canary() -> tuple[int, str]:
        """Send one as an engineer does: the exit code, and what became of it."""
        answer = scene.engineer.call("rb-sb-004", "--guild", guild, "--canary", "--yes", "--json")
        hops = [each for each in answer.document["findings"] if each["check"] == "hop"]
        assert [hop["summary"].split(",")[0] for hop in hops] == [f"hop {n}" for n in range(1, 8)], (
            answer.said
        )
        return answer.code, hops[-1]["summary"]

    assert canary() == (2, f"hop 7, canary: not stored: no stream SANDBOX takes {_subject(scene, guild)}")
    done = scene.apply(found)
    assert routed(done)
    scene.operator.undo(done.run, {RUNBOOK.name: RUNBOOK}, ask=lambda *_: None)
    again = scene.diagnose()
    assert (causes(again), verbs(again)) == ([cause], verbs(found))
    assert routed(scene.apply(again))
    code, said = canary()
    assert code == 0
    assert "stored after" in said
    assert "sandbox-consumer handed it out after" in said
    assert "acknowledged after" in said
    scene.relieve("stream-drifted")
    scene.see_that_all_is_well()


def _subject(scene: Scene, guild: str) -> str:
    with redis.Redis.from_url(scene.lab.env["REDIS_URL"], decode_responses=True) as client:
        return f"sandbox.{client.get(key_of(guild).decode())}.events.arrakis.canary"


@pytest.mark.soak
def test_a_worker_that_hangs_is_restarted_and_watched(scene: Scene) -> None:
    scene.relieve("routes-stale")
    scene.lay_out("consumer-unserved")
    found = scene.diagnose()
    [cause] = causes(found)
    assert (
        cause == "cause: nobody serves sandbox-event-router, though service arrakis-worker runs 1 of 1 tasks"
    )
    assert verbs(found) == [("restart service", "service")]
    assert found.plan is not None
    assert found.plan.actions[0].reversibility is Reversibility.IRREVERSIBLE
    scene.said.clear()
    assert routed(scene.apply(found))
    assert any("0 of 1 tasks run, 2 deployments" in line for line in scene.said), scene.said
    scene.relieve("consumer-unserved")
    scene.see_that_all_is_well()


@pytest.mark.soak
def test_a_worker_whose_task_cannot_start_is_named_and_not_restarted_in_vain(scene: Scene) -> None:
    scene.relieve("routes-stale")
    scene.lay_out("worker-stopped")
    found = scene.diagnose()
    assert causes(found) == ["cause: service arrakis-worker runs none of its 1 tasks"]
    assert any("CONNECTION_REFUSED" in detail for detail in found.findings[0].evidence["details"])
    assert found.plan is None
    [left] = [each.summary for each in found.findings if each.check == "left alone"]
    assert left.startswith("arrakis-worker: not restarted: its tasks fail as they start")
    scene.relieve("worker-stopped")
    scene.see_that_all_is_well()


@pytest.mark.soak
def test_a_loop_is_named_with_its_period_and_left_to_whoever_can_end_it(scene: Scene) -> None:
    scene.relieve("routes-stale")
    scene.lay_out("events-looping")
    found = scene.diagnose()
    [cause] = causes(found)
    assert "events circle: the EventRouter publishes what belongs to production back into EVENTS" in cause
    details = found.findings[0].evidence["details"]
    assert "times, every 0." in details[0]
    assert found.plan is None
    scene.relieve("events-looping")
    scene.see_that_all_is_well()


def test_a_sandbox_that_is_not_there_is_one_line_and_a_next_step(scene: Scene) -> None:
    answer = scene.engineer.call("rb-sb-004", "--sandbox", "nothing")
    assert answer.code == 1
    assert answer.err.splitlines() == [
        "SANDBOX_004: there is no sandbox named nothing",
        "  next: `gaib sandbox list --all` shows those that exist",
    ]
