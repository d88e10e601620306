"""An emergency stop and its resume, by what is known: each part is stopped, or it is said why not; nothing is stopped twice."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from diagnostics.compute import Rule
from diagnostics.scaling import Scaling
from diagnostics.stack import Stack
from runbooks import emergency_resume, emergency_stop, jobs
from runbooks.emergency.evidence import CLEANUP, PARTS, ROUTER, SANDBOXES, Evidence, Raised
from runbooks.emergency.state import findings
from runbooks.engine import plan as plans
from runbooks.engine.apply import Outcome
from runbooks.engine.environment import Environment
from runbooks.engine.guards import not_overtaken
from runbooks.engine.model import Action, Finding, Phase, Severity
from runbooks.engine.operate import Diagnosis
from runbooks.engine.stops import Marked, Stop
from runbooks.engine.work import Result
from runbooks.findings import left_alone
from runbooks.orphaned.evidence import Database, Facts, Use
from runbooks.remedies import tags
from runbooks.remedies.stopping import disabling, stopping
from runbooks.remedies.tags import Kept, RuleBefore, ServiceBefore
from runbooks.reports.terminal import applied, diagnosis
from sandbox.errors import Denied, Unreachable
from sandbox.facts import Known, Unknown
from sandbox.keyspace import Survey
from sandbox.model import Schema, Status
from sandbox.orphans import Roster
from tests.unit.evidence import NOW, row, service
from tests.unit.plans import plan

STACK = Stack()
RULE = Rule(
    name=STACK.cleanup_rule,
    enabled=True,
    schedule="rate(15 minutes)",
    targets=(),
    arn="arn:aws:events:x:1:rule/arrakis-sandbox-cleanup",
    state="ENABLED",
)
OFF = replace(RULE, enabled=False, state="DISABLED")
SERVICE = service(arn="arn:aws:ecs:x:1:service/arrakis/arrakis-worker")
STILL = replace(SERVICE, desired=0, running=0)
WAS = Scaling(minimum=1, maximum=4)
LATE = Unknown("no answer within 3 s", "is it up?", Unreachable("no answer within 3 s"))
BOXES = tuple((row(number), (f"sandbox_{UUID(int=number)}",)) for number in (1, 2))
FIRST = tags.Stop(id="stop-1", by="ada", at=NOW - timedelta(hours=1))
DISABLED = disabling(RULE, FIRST)
STOPPED = stopping(SERVICE, WAS, FIRST, cluster=STACK.cluster)
RULE_TAGS = Known(Kept(stop=FIRST, before=RuleBefore(state="ENABLED")))
SERVICE_TAGS = Known(Kept(stop=FIRST, before=ServiceBefore(desired=2, scaling=WAS)))
Seen = Mapping[str, Any]
CHOICES = [{CLEANUP}, {ROUTER}, {SANDBOXES}, {ROUTER, SANDBOXES}, set(PARTS)]

STAGING = Environment(name="staging", database_url="", redis_url="", nats_url="")


def evidence(*changes: Seen) -> Evidence:
    """Return a world where all runs and no stop is raised, but for these changes."""
    facts: dict[str, Any] = {
        "now": NOW,
        "actor": "chani",
        "stack": STACK,
        "raised": Known(None),
        "running": Known(BOXES),
        "rule": Known(RULE),
        "service": Known(SERVICE),
        "scaling": Known(WAS),
        "rule_kept": Known(None),
        "service_kept": Known(None),
    }
    for each in changes:
        facts |= each
    return Evidence(**facts)


def stop(*parts: Action, halting: bool = True, **changes: Any) -> Stop:
    """Return a stop that is raised, and recorded these parts."""
    fields: dict[str, Any] = {
        "id": "stop-1",
        "raised_at": NOW - timedelta(hours=1),
        "raised_by": "ada",
        "reason": "",
        "halting": halting,
        "parts": {each.verb: plans.as_json(each) for each in parts},
    }
    return Stop(**{**fields, **changes})


def raised(*parts: Action, waiting: Collection[Marked] = (), lost: Any = (), **changes: Any) -> Seen:
    """Return the fact that it is raised."""
    told = Raised(stop=stop(*parts, **changes), waiting=tuple(waiting), lost=tuple(lost))
    return {"raised": Known(told)}


def marked(number: int = 1, **changes: Any) -> Marked:
    """Return a sandbox that a stop marked, and nobody touched since."""
    fields: dict[str, Any] = {
        "id": UUID(int=number),
        "name": f"box-{number}",
        "was": "running",
        "was_destroyed_at": None,
        "was_expires_at": NOW + timedelta(days=1),
        "schemas": [f"sandbox_{UUID(int=number)}"],
        "was_guilds": ["1"],
        "marked_at": NOW - timedelta(hours=1),
        "status": "destroyed",
        "destroyed_at": NOW - timedelta(hours=1),
        "expires_at": NOW + timedelta(days=1),
        "guilds": ["1"],
        "event": "sandbox_destroyed",
        "actor": "ada",
        "at": NOW - timedelta(hours=1),
    }
    return Marked(**{**fields, **changes})


def verbs(actions: list[Action]) -> list[str]:
    return [action.verb for action in actions]


# ---- the stop: of each part, what is known of it, what is done, and otherwise what is said


RULES: dict[str, tuple[Seen, bool, str]] = {
    "enabled": ({}, True, ""),
    "enabled, tags of old": ({"rule_kept": RULE_TAGS}, True, ""),
    "all trails": ({"rule": Known(replace(RULE, state="ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"))}, True, ""),
    "disabled": ({"rule": Known(OFF)}, False, "is disabled already"),
    "tags alone": ({"rule": Known(OFF), "rule_kept": RULE_TAGS}, False, "is disabled already"),
    "tags unknown": ({"rule": Known(OFF), "rule_kept": LATE}, False, "is disabled already"),
    "missing": ({"rule": Known(None), "rule_kept": Known(None)}, False, "there is no such rule"),
    "unknown": ({"rule": LATE, "rule_kept": LATE}, False, "by hand: aws events disable-rule --name arrakis-sandbox-cleanup"),
}  # fmt: skip
BY_HAND = "by hand: aws application-autoscaling register-scalable-target"
SERVICES: dict[str, tuple[Seen, bool, str]] = {
    "runs": ({}, True, ""),
    "runs, tags unknown": ({"service_kept": LATE}, True, ""),
    "no autoscaling": ({"scaling": Known(None)}, True, ""),
    "none desired, autoscaling may start some": ({"service": Known(STILL)}, True, ""),
    "stopped": ({"service": Known(STILL), "scaling": Known(WAS.halted)}, False, "is stopped already: 0 tasks run"),
    "stopped, no autoscaling": ({"service": Known(STILL), "scaling": Known(None)}, False, "is stopped already"),
    "tags alone": ({"service": Known(STILL), "scaling": Known(WAS.halted), "service_kept": SERVICE_TAGS}, False, "is stopped already"),
    "interrupted": ({"service": Known(replace(STILL, running=2)), "scaling": Known(WAS.halted), "service_kept": SERVICE_TAGS}, True, ""),
    "on its way, by whom is unknown": (
        {"service": Known(replace(STILL, running=2)), "scaling": Known(WAS.halted), "service_kept": LATE},
        False, "is stopped already: 2 tasks run, 0 should"),
    "draining": ({"service": Known(replace(SERVICE, status="DRAINING"))}, False, "there is no such active service"),
    "missing": ({"service": Known(None), "service_kept": Known(None)}, False, "there is no such active service"),
    "unknown": ({"service": LATE, "service_kept": LATE}, False, BY_HAND),
    "autoscaling unknown": ({"scaling": LATE}, True, BY_HAND),
    "stopped, autoscaling unknown": ({"service": Known(STILL), "scaling": LATE}, False, BY_HAND),
    "all of it unknown": ({"service": LATE, "service_kept": LATE, "scaling": LATE}, False, BY_HAND),
}  # fmt: skip
ROWS: dict[str, tuple[Seen, bool, str]] = {
    "some run": ({}, True, "2 sandboxes will be marked destroyed"),
    "none runs": ({"running": Known(())}, False, "no sandbox runs"),
    "unknown": ({"running": LATE}, False, "running sandboxes are not marked destroyed: cannot tell"),
}
FLAGS: dict[str, tuple[Seen, bool]] = {
    "down": ({}, False),
    "up": (raised(), True),
    "recorded alone": (raised(halting=False), False),
    "unknown": ({"raised": LATE}, False),
}


@pytest.mark.parametrize("parts", CHOICES, ids=lambda parts: "+".join(sorted(parts)))
def test_each_part_is_stopped_or_it_is_said_why_not(parts: set[str]) -> None:
    flags = list(FLAGS.values())[: 4 if parts == set(PARTS) else 2]
    for rule, service_, rows, (flag, up) in product(RULES.values(), SERVICES.values(), ROWS.values(), flags):
        seen = evidence(rule[0], service_[0], rows[0], flag)
        actions, left = emergency_stop.propose(seen, parts=parts)
        wanted = [
            verb
            for part, (_, done, _), verb in (
                (CLEANUP, rule, "disable rule"),
                (ROUTER, service_, "stop service"),
                (SANDBOXES, rows, "mark sandboxes"),
            )
            if part in parts and done
        ]
        done = verbs(actions)
        assert [verb for verb in done if verb != "raise stop"] == wanted
        assert done[:1] == ["raise stop"] or not done  # first of all, so that it is told first
        if wanted or (CLEANUP in parts and not up):
            assert done[:1] == ["raise stop"]
        assert [action.id for action in actions] == [f"a{n}" for n in range(1, len(actions) + 1)]
        said = "\n".join(line for each in left for line in (each.summary, *each.evidence.get("drawn", ())))
        for part, (_, _, says) in ((CLEANUP, rule), (ROUTER, service_), (SANDBOXES, rows)):
            assert not says or (says in said) == (part in parts)


@pytest.mark.parametrize(
    ("changes", "part"),
    [(RULES["unknown"][0], CLEANUP), (SERVICES["unknown"][0], ROUTER), (ROWS["unknown"][0], SANDBOXES)],
)
def test_what_cannot_be_told_is_told_with_what_finishes_it_and_never_as_something_to_look_with(
    changes: Seen, part: str
) -> None:
    _, left = emergency_stop.propose(evidence(changes))
    [untold] = [each for each in left if each.severity is Severity.UNKNOWN]
    assert untold.check == "left alone"
    assert f"`emergency-stop --only {part}` does it" in untold.summary
    assert not any(
        word in untold.source for word in ("disable-rule", "register-", "update-service", "UPDATE")
    )


def test_what_stands_still_is_nothing_wrong_to_who_stops_it() -> None:
    world = evidence(RULES["tags alone"][0], SERVICES["tags alone"][0], ROWS["none runs"][0], raised())
    assert {each.severity for each in emergency_stop.diagnose(world)} == {Severity.OK}
    assert Severity.WARNING in {each.severity for each in findings(world)}
    for unknown in (RULES["unknown"][0], {"raised": LATE}, {"running": LATE}, {"rule_kept": LATE}):
        assert Severity.UNKNOWN in {each.severity for each in emergency_stop.diagnose(evidence(unknown))}


# ---- the record: what a stop says of how it was before


def recorded(world: Evidence, parts: Collection[str] = PARTS) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a stop of this world records, and what of the record it says is over."""
    actions, _ = emergency_stop.propose(world, parts=parts)
    [said] = [each for each in actions if each.verb == "raise stop"]
    return said.after["parts"], said.before["over"]


def test_a_stop_records_how_it_was() -> None:
    parts, over = recorded(evidence())
    assert parts["disable rule"]["before"]["state"] == "ENABLED"
    assert parts["stop service"]["before"]["desired"] == 2
    assert parts["stop service"]["before"]["scaling"]["minimum"] == 1
    assert over == {}
    assert {part["before"]["stop"] for part in parts.values()} == {f"stop-{NOW:%Y%m%d-%H%M%S-%f}"}


def test_what_only_tags_tell_of_is_recorded_as_soon_as_it_can_be() -> None:
    world = evidence(RULES["tags alone"][0], SERVICES["tags alone"][0], {"running": Known(())})
    parts, over = recorded(world)
    assert {part["before"]["stop"] for part in parts.values()} == {"stop-1"}
    assert parts["stop service"]["before"]["desired"] == 2
    assert over == {}
    assert recorded(world, [ROUTER])[0].keys() == {"stop service"}


def test_a_second_stop_of_what_is_stopped_changes_no_record() -> None:
    still = [RULES["tags alone"][0], SERVICES["tags alone"][0], raised(DISABLED, STOPPED)]
    assert emergency_stop.propose(evidence(*still, {"running": Known(())}))[0] == []
    actions, _ = emergency_stop.propose(evidence(*still))
    assert verbs(actions) == ["raise stop", "mark sandboxes"]  # what began to run since
    assert (actions[0].after["parts"], actions[0].before["over"]) == ({}, {})


def test_a_stop_that_was_interrupted_goes_on_with_what_it_knew() -> None:
    halfway = {"service": Known(replace(STILL, running=1)), "scaling": Known(WAS.halted)}
    for said in (raised(STOPPED), {"service_kept": SERVICE_TAGS}):
        actions, _ = emergency_stop.propose(evidence(halfway, said), parts=[ROUTER])
        assert actions[-1].before == STOPPED.before


@pytest.mark.parametrize(
    ("now", "scaling", "desired", "limits"),
    [
        pytest.param(SERVICE, WAS, 2, WAS, id="it was resumed"),
        pytest.param(replace(SERVICE, desired=4, running=4), WAS, 4, WAS, id="and scaled out since"),
        pytest.param(SERVICE, replace(WAS, maximum=9), 2, replace(WAS, maximum=9), id="and changed by somebody"),
        pytest.param(STILL, replace(WAS, minimum=0), 2, replace(WAS, minimum=0), id="still stopped, its scaling changed"),
    ],
)  # fmt: skip
def test_a_record_of_what_runs_again_is_replaced_by_how_it_is_now(
    now: Any, scaling: Scaling, desired: int, limits: Scaling
) -> None:
    world = evidence({"service": Known(now), "scaling": Known(scaling)}, raised(STOPPED, DISABLED))
    parts, over = recorded(world, [ROUTER])
    before = parts["stop service"]["before"]
    assert (before["desired"], Scaling(**before["scaling"])) == (desired, limits)
    assert over == {"stop service": plans.as_json(STOPPED)}


def test_two_stops_of_one_moment_have_names_of_their_own() -> None:
    names = {
        emergency_stop.propose(evidence({"now": NOW + timedelta(microseconds=n)}))[0][0].resource.id
        for n in range(3)
    }
    assert len(names) == 3


STOP, RESUME, OTHER = "emergency-stop", "emergency-resume", "rb-sb-003"


@pytest.mark.parametrize(
    ("since", "allowed"),
    [([], True), ([STOP], True), ([OTHER], True), ([RESUME], False), ([OTHER, STOP, RESUME, STOP], False)],
)
def test_a_stop_that_was_taken_back_is_not_gone_on_with(since: list[str], allowed: bool) -> None:
    runs = [("r0", RESUME), ("r1", STOP), *((f"s{number}", name) for number, name in enumerate(since))]
    assert not_overtaken("r1", runs, [STOP, RESUME]).allowed is allowed


# ---- the resume


RULES_BACK: dict[str, tuple[Seen, bool, str]] = {
    "enabled": ({}, False, ""),
    "by the record": ({"rule": Known(OFF)}, True, ""),
    "by tags": ({"rule": Known(OFF), "rule_kept": RULE_TAGS}, True, ""),
    "enabled, its tags left": ({"rule_kept": RULE_TAGS}, True, ""),
    "record, tags unknown": ({"rule": Known(OFF), "rule_kept": LATE}, True, ""),
    "changed": (
        {"rule": Known(replace(RULE, state="ENABLED_WITH_ALL"))},
        False,
        "it is ENABLED_WITH_ALL, and was ENABLED",
    ),
    "gone": ({"rule": Known(None)}, False, "there is no such rule any more"),
    "unknown": ({"rule": LATE, "rule_kept": LATE}, False, "by hand: aws events enable-rule --name"),
}
LOOKED = [(CLEANUP, "rule"), (ROUTER, "service"), (ROUTER, "scaling")]
STOPPED_NOW = {"service": Known(STILL), "scaling": Known(WAS.halted)}
SERVICES_BACK: dict[str, tuple[Seen, bool, str]] = {
    "runs": ({}, False, ""),
    "scaled since": ({"service": Known(replace(SERVICE, desired=3, running=3))}, False, ""),
    "by the record": (STOPPED_NOW, True, ""),
    "by tags": ({**STOPPED_NOW, "service_kept": SERVICE_TAGS}, True, ""),
    "record, tags unknown": ({**STOPPED_NOW, "service_kept": LATE}, True, ""),
    "runs, its tags left": ({"service_kept": SERVICE_TAGS}, True, ""),
    "interrupted": ({"scaling": Known(WAS.halted)}, True, ""),
    "changed": (
        {**STOPPED_NOW, "scaling": Known(replace(WAS.halted, maximum=9))},
        False,
        "--desired-count 2; aws application-autoscaling register-scalable-target",
    ),
    "gone": ({"service": Known(None)}, False, "there is no such active service any more"),
    "unknown": ({"service": LATE, "service_kept": LATE}, False, "--desired-count 2"),
    "autoscaling unknown": ({**STOPPED_NOW, "scaling": LATE}, False, "--min-capacity 1"),
}
ROWS_BACK: dict[str, tuple[Seen, bool, str]] = {
    "none": ({"waiting": ()}, False, ""),
    "all": ({"waiting": [marked(1), marked(2)]}, True, ""),
    "some": (
        {"waiting": [marked(1)], "lost": [(marked(2), "its row is gone"), (marked(3), "its row is gone")]},
        True,
        "box-2, box-3 cannot come back: its row is gone",
    ),
    "none can": ({"lost": [(marked(2), "schema x is gone")]}, False, "box-2 cannot come back: schema x is gone"),
    "without its guild": ({"waiting": [marked(1, guilds=[])]}, True, "box-1 comes back without guild 1"),
}  # fmt: skip


@pytest.mark.parametrize("parts", CHOICES, ids=lambda parts: "+".join(sorted(parts)))
@pytest.mark.parametrize("halting", [True, False], ids=["halting", "not halting"])
def test_each_part_comes_back_or_it_is_said_why_not(parts: set[str], halting: bool) -> None:
    for rule, service_, rows in product(RULES_BACK.values(), SERVICES_BACK.values(), ROWS_BACK.values()):
        seen = evidence(rule[0], service_[0], raised(DISABLED, STOPPED, halting=halting, **rows[0]))
        actions, left = emergency_resume.propose(seen, parts=parts)
        told = {SANDBOXES: rows, ROUTER: service_, CLEANUP: rule}
        names = {SANDBOXES: "undo mark sandboxes", ROUTER: "undo stop service", CLEANUP: "undo disable rule"}
        wanted = [names[part] for part, (_, done, _) in told.items() if part in parts and done]
        rest = any(done or says for part, (_, done, says) in told.items() if part not in parts)
        untold = not rest and any(part in parts and told[part][0].get(name) is LATE for part, name in LOOKED)
        if halting:
            flag = [True] if CLEANUP in parts and not untold else []
        else:
            flag = [] if rest or untold else [True]
        assert verbs(actions) == wanted + ["undo raise stop"] * len(flag)
        if flag:
            assert actions[-1].before["whole"] is not rest
        said = "\n".join(line for each in left for line in (each.summary, *each.evidence.get("drawn", ())))
        for part, (_, _, says) in told.items():
            assert not says or (says in said) == (part in parts)
        assert ("it stays raised until all that it stopped can be told of" in said) == (untold and (CLEANUP in parts or not halting))  # fmt: skip
        assert "--desired-count 0" not in said  # what stops it is no way back
        assert "disable-rule" not in said


def test_without_a_record_the_tags_tell() -> None:
    for unknown in ({"raised": LATE}, {"raised": Known(None)}):
        world = evidence(RULES_BACK["by tags"][0], SERVICES_BACK["by tags"][0], unknown)
        actions, left = emergency_resume.propose(world)
        assert verbs(actions) == ["undo stop service", "undo disable rule"]
        assert actions[0].before["desired"] == 2
        assert [each.severity for each in left] == [Severity.UNKNOWN] * (unknown["raised"] is LATE)


def test_without_record_and_tags_nothing_is_guessed() -> None:
    still = [{"rule": Known(OFF), "rule_kept": LATE}, {**STOPPED_NOW, "service_kept": LATE}]
    actions, left = emergency_resume.propose(evidence(*still))
    assert actions == []
    assert [each.severity for each in left] == [Severity.UNKNOWN] * 2
    actions, left = emergency_resume.propose(evidence({"rule": Known(OFF)}, STOPPED_NOW))
    assert (actions, left) == ([], [])  # nobody here stopped it


def test_of_record_and_tags_the_later_one_tells() -> None:
    later = replace(FIRST, id="stop-2", at=NOW - timedelta(minutes=1))
    kept = Known(Kept(stop=later, before=ServiceBefore(desired=3, scaling=WAS)))
    world = evidence({**STOPPED_NOW, "service_kept": kept}, raised(STOPPED))
    assert emergency_resume.propose(world)[0][0].before["desired"] == 3
    early = replace(FIRST, id="stop-0", at=NOW - timedelta(hours=2))
    earlier = Known(Kept(stop=early, before=kept.value.before))
    world = evidence({**STOPPED_NOW, "service_kept": earlier}, raised(STOPPED))
    assert emergency_resume.propose(world)[0][0].before["desired"] == 2
    same = Known(Kept(stop=early, before=ServiceBefore(desired=2, scaling=WAS)))
    world = evidence({**STOPPED_NOW, "service_kept": same}, raised(STOPPED))
    assert emergency_resume.propose(world)[0][0].before["stop"] == "stop-0"  # so that its tags go


def test_nothing_is_raised() -> None:
    assert emergency_resume.propose(evidence()) == ([], [])
    assert {each.severity for each in findings(evidence())} == {Severity.OK}


# ---- the sandboxes


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"status": None, "destroyed_at": None, "expires_at": None}, "its row is gone"),
        ({"status": "running", "destroyed_at": None}, "it is running by somebody else's hand"),
        ({"destroyed_at": NOW}, "it is destroyed by somebody else's hand"),
        ({"expires_at": NOW + timedelta(days=2)}, "somebody moved its end since"),
        ({"at": NOW, "event": "ttl_extended", "actor": "paul"}, "paul wrote ttl_extended about it since"),
        ({"at": None, "event": None, "actor": None}, None),
    ],
)
def test_what_somebody_did_to_a_marked_sandbox_is_seen(changes: dict[str, Any], why: str | None) -> None:
    assert marked(**changes).touched == why


def test_those_past_their_end_are_told_before_they_come_back() -> None:
    over = marked(1, expires_at=NOW - timedelta(hours=1))
    [told] = [
        each for each in findings(evidence(raised(waiting=[over, marked(2)]))) if each.check == "sandboxes"
    ]
    assert told.evidence["details"] == [
        "past their end by now: 1 of them; once back, the next clean-up takes these"
    ]


def test_the_note_says_what_is_left_and_who_does_not_take_it() -> None:
    _, left = emergency_stop.propose(evidence())
    task, note = left
    assert "a clean-up task that runs already is not ended" in task.summary
    assert "--family arrakis-sandbox-cleanup --desired-status RUNNING" in task.source
    assert (
        "2 sandboxes will be marked destroyed, their schemas, keys and mappings left behind" in note.summary
    )
    assert "The scheduled clean-up will not take what they leave" in note.summary
    assert {(each.check, each.severity) for each in left} == {("what is left", Severity.WARNING)}


def test_eighty_columns_hold_it_and_a_command_stays_on_one_line() -> None:
    world = evidence(RULES["unknown"][0], SERVICES["unknown"][0], ROWS["unknown"][0])
    actions, left = emergency_stop.propose(world)
    made = plan(len(actions), runbook="emergency-stop", actions=actions, findings=tuple(left))
    found = Diagnosis(
        at=NOW,
        by="ada@host",
        runbook=emergency_stop.RUNBOOK,
        environment=STAGING,
        findings=(*emergency_stop.diagnose(world), *left),
        plan=made,
    )
    results = (Result(action=actions[0], phase=Phase.FAILED, reason="no answer"),)
    outcome = Outcome(run="run-1", plan=made, results=results, left=tuple(left))
    shown = [diagnosis(found, colour=False, width=80), applied(outcome, environment=STAGING, width=80)]
    text = "\n".join(shown)
    for line in text.splitlines():
        assert len(line) <= 80 or line.strip().startswith(("aws ", "psql ", "by hand: aws "))
    assert text.count("by hand: aws events disable-rule --name arrakis-sandbox-cleanup\n") == 2


@pytest.mark.parametrize(
    ("settled", "left", "code"),
    [(True, [], 0), (True, ["x"], 5), (False, ["x"], 1), (False, [], 1)],
)
def test_what_was_left_alone_makes_it_a_part(settled: bool, left: list[str], code: int) -> None:
    result = Result(
        action=DISABLED, phase=Phase.DONE if settled else Phase.FAILED, reason="", settled=settled
    )
    alone = tuple(left_alone(each, "cannot tell") for each in left)
    outcome = Outcome(run="run-1", plan=plan(1), results=(result,), left=alone)
    assert outcome.exit == code
    assert ("1 left alone" in applied(outcome, environment=STAGING)) == bool(left)


@pytest.mark.parametrize("orphaned", [False, True])
def test_the_scheduled_job_puts_nothing_away_of_what_a_stop_marked(orphaned: bool) -> None:
    kept, gone, stranger = UUID(int=1 << 96), UUID(int=2 << 96), UUID(int=3 << 96)
    rows = [row(int(each), Status.DESTROYED) for each in (kept, gone)]
    schemas = [
        Schema(name=f"sandbox_{each}", oid=16385, owner="app", tables=3, bytes=1, rows_estimate=1, writes=0)
        for each in (kept, gone, stranger)
    ]
    facts = Facts(
        now=NOW,
        alarm=Known(None),
        database=Known(Database(roster=Roster(rows), schemas=tuple(schemas))),
        keys=Known(Survey(families={str(kept): 3, str(gone): 3}, parked={})),
        listeners=Known([]),
        uses=Known(Use(sessions=(), activity={})),
        families=Known({}),
    )
    actions, _ = jobs.proposal(facts, orphaned=orphaned, spared=(), kept={kept})
    named = {action.resource.id for action in actions}
    assert named == {f"sandbox_{gone}", str(gone), *([f"sandbox_{stranger}"] if orphaned else [])}
    assert len(jobs.proposal(facts, orphaned=orphaned, spared=(), kept=())[0]) == len(named) + 2


def test_tags_that_nobody_may_read_are_told_once() -> None:
    def told(*changes: Seen) -> list[Finding]:
        return [each for each in findings(evidence(*changes)) if each.severity is Severity.UNKNOWN]

    denied = Unknown("refused", "", Denied("refused"))
    assert [each.check for each in told({"rule_kept": denied})] == ["schedule's tags"]
    assert [each.check for each in told({"rule": denied, "rule_kept": denied})] == ["schedule"]
