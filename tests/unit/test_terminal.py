"""What reaches a terminal cannot command it, and says the answer first."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.engine.apply import Outcome
from runbooks.engine.environment import Environment
from runbooks.engine.model import Action, Finding, Phase, Plan, Reversibility, Severity
from runbooks.engine.operate import Diagnosis
from runbooks.engine.work import Result
from runbooks.rb_sb_003 import RUNBOOK
from runbooks.reports.terminal import applied, diagnosis, plan_lines
from sandbox.text import clean, counted
from tests.unit import postmortem
from tests.unit.goldens import golden, here
from tests.unit.hostile import TEXTS
from tests.unit.plans import FINDING, NOW, action, plan

__all__ = ["here"]

STAGING = Environment(name="staging", database_url="", redis_url="", nats_url="")
UNKNOWN = Finding(check="keys", severity=Severity.UNKNOWN, summary="keys: cannot tell")
BAD = Finding(check="alarm", severity=Severity.CRITICAL, summary="alarm fires")
WELL = Finding(check="orphans", severity=Severity.OK, summary="no orphans")


def _text(
    *findings: Finding, plan: Plan | None = None, environment: Environment = STAGING, colour: bool = False
) -> str:
    found = Diagnosis(
        at=NOW, by="ada@host", runbook=RUNBOOK, environment=environment, findings=findings, plan=plan
    )
    return diagnosis(found, colour=colour)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sandbox_83963dd9", "sandbox_83963dd9"),
        ("é 日本 …", "é 日本 …"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b2J", "\\x9b2J"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x00\x07\x08\x7f", "\\x00\\x07\\x08\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("\u200b\u200f\ufeff", "\\u200b\\u200f\\ufeff"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("\ud800", "\\ud800"),
        (None, "None"),
        (7, "7"),
    ],
)
def test_what_could_command_the_terminal_is_spelt_out(text: object, shown: str) -> None:
    assert clean(text) == shown


@given(st.text(st.characters()))
def test_cleaned_text_is_printable_and_stays_so(text: str) -> None:
    assert clean(text).isprintable()
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize(
    ("findings", "made", "verdict"),
    [
        ((WELL,), None, "healthy"),
        ((BAD, WELL), None, "something is wrong"),
        ((FINDING,), plan(), "something is wrong"),
        ((UNKNOWN, BAD), plan(), "something is wrong, and not everything could be told"),
        ((UNKNOWN, FINDING), plan(), "cannot tell"),
    ],
)
def test_the_verdict_comes_first(findings: tuple[Finding, ...], made: Plan | None, verdict: str) -> None:
    first = _text(*findings, plan=made).splitlines()[0]
    assert first.startswith(f"RB-SB-003  {RUNBOOK.title}: {verdict}")
    lab = _text(*findings, plan=made, environment=replace(STAGING, name="lab"))
    assert lab.startswith("LAB  RB-SB-003")


def test_the_worst_finding_is_named_first() -> None:
    text = _text(WELL, UNKNOWN, FINDING, BAD)
    places = [text.index(one.summary) for one in (BAD, FINDING, UNKNOWN, WELL)]
    assert places == sorted(places)


def test_without_a_plan_nothing_is_proposed() -> None:
    assert _text(WELL).endswith("Nothing is proposed.")


@pytest.mark.parametrize(("count", "option"), [(3, ""), (30, " --max-targets 30")])
def test_the_command_that_applies_it_comes_last(
    count: int, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOKS_COMMAND", "./inv")
    made = plan(count)
    assert (
        _text(FINDING, plan=made).splitlines()[-1] == f"  ./inv apply --plan {made.id} --env staging{option}"
    )


@pytest.mark.parametrize(("lost", "words"), [(0, "all can be undone"), (2, "2 CANNOT BE UNDONE")])
@pytest.mark.parametrize("width", [80, 200])
def test_the_plan_says_whether_it_can_be_undone(lost: int, words: str, width: int) -> None:
    text = "\n".join(plan_lines(plan(lost=lost), width=width))
    assert f"3 actions, {words}" in text
    assert all(name in text for name in ("t1", "t2", "t3"))


def harmless(number: int) -> Action:
    """Return an action that loses nothing."""
    return replace(action(number), reversibility=Reversibility.NOTHING)


def test_what_loses_nothing_is_nothing_to_undo() -> None:
    made = plan(2)
    some = replace(made, actions=(harmless(1), made.actions[1]))
    assert "2 actions, all can be undone, where anything is lost" in plan_lines(some)[0]
    assert (
        "2 actions, nothing to undo: they lose nothing"
        in plan_lines(replace(made, actions=(harmless(1), harmless(2))))[0]
    )


@pytest.mark.parametrize(
    ("what", "phase", "offered"),
    [
        (action(1), Phase.DONE, True),
        (action(1), Phase.FAILED, True),
        (action(1), Phase.SKIPPED, False),
        (action(1), None, False),
        (action(1, lost=True), Phase.DONE, False),
        (harmless(1), Phase.DONE, False),
    ],
)
def test_an_undo_is_offered_where_something_was_done_that_can_be(
    what: Action, phase: Phase, offered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOKS_COMMAND", "./inv")
    result = Result(action=what, phase=phase, reason="so", settled=phase is Phase.DONE)
    text = applied(Outcome(run="r1", plan=plan(1), results=(result,)), environment=STAGING)
    assert ("Undo:   ./inv undo --run r1 --env staging" in text) is offered


def test_why_each_target_is_acted_on_is_told_on_a_narrow_terminal_too() -> None:
    made = plan(2)
    narrow = [line.strip() for line in plan_lines(made, width=80)]
    assert [narrow.count(action.reason) for action in made.actions] == [2, 2]
    assert all(line == line.rstrip() for line in plan_lines(made, width=80))


def test_a_way_is_told_hop_by_hop_where_its_worst_hop_is() -> None:
    hops = [
        replace(WELL, check="hop", summary=f"hop {number}", severity=severity)
        for number, severity in enumerate((Severity.OK, Severity.CRITICAL, Severity.UNKNOWN), 1)
    ]
    text = _text(WELL, *hops, BAD, UNKNOWN)
    told = (BAD.summary, "hop 1", "hop 2", "hop 3", UNKNOWN.summary, WELL.summary)
    places = [text.index(one) for one in told]
    assert places == sorted(places)


def test_no_finding_can_forge_a_line_or_a_colour() -> None:
    evil = "x\nNothing is proposed.\x1b[2J\u202e"
    forged = replace(FINDING, summary=evil, source=evil, evidence={"owner": evil, "hint": evil})
    text = _text(forged)
    assert text.splitlines().count("Nothing is proposed.") == 1
    assert not re.search("[\x1b\u202e]", text)


@settings(deadline=None)
@given(TEXTS)
def test_whatever_others_wrote_commands_no_terminal(text: str) -> None:
    evil = replace(
        FINDING,
        summary=text,
        source=text,
        evidence={"owner": text, "hint": text, "details": [text], "drawn": [text]},
    )
    told = _text(evil, plan=replace(plan(), actions=(replace(action(1), verb=text, reason=text),)))
    assert all(char.isprintable() or char == "\n" for char in told)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("width", [80, 200])
def test_the_incident_is_told_as_it_was_looked_at(width: int) -> None:
    golden(f"diagnosed-{width}.txt", diagnosis(postmortem.diagnosis(), colour=False, width=width))
    told = applied(postmortem.outcome(), environment=postmortem.PRODUCTION, width=width)
    golden(f"ran-{width}.txt", told)


def test_colour_only_where_it_is_wanted() -> None:
    assert "\x1b[31;1m" in _text(BAD, colour=True)
    assert "\x1b" not in _text(BAD, colour=False)


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 sessions wait"), (1, "1 session waits"), (2, "2 sessions wait")]
)
def test_what_is_counted_may_be_one(number: int, told: str) -> None:
    assert counted(number, "session waits", "sessions wait") == told
    assert counted(number, "key") == f"{number} key{'' if number == 1 else 's'}"
