"""The handbook is what the runbooks say of themselves: whole, as it is committed, fit to be read on GitHub and in a terminal."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from invoke.collection import Collection
from invoke.parser import Parser
from rich.markdown import Markdown

import tasks
from diagnostics.alarms import PUBLISHERS
from diagnostics.stack import Stack
from runbooks.catalogue import RUNBOOKS
from runbooks.creation.evidence import Facts as Creation
from runbooks.database_maintenance import Facts as Maintenance
from runbooks.emergency.evidence import Evidence as Emergency
from runbooks.engine.model import Runbook
from runbooks.engine.page import SECTIONS, Look, Page, Rights, Threshold
from runbooks.mass.evidence import Evidence as Mass
from runbooks.orphaned.evidence import Database, Use
from runbooks.orphaned.evidence import Facts as Orphaned
from runbooks.overdue.evidence import Evidence as Overdue
from runbooks.quarantined import Quarantine
from runbooks.reports import handbook, pages
from runbooks.routing.evidence import Evidence as Routing
from runbooks.slowness.evidence import Evidence as Slowness
from sandbox.errors import ArrakisError, Denied
from sandbox.facts import Known, Unknown
from sandbox.keyspace import Survey
from sandbox.metrics import ALARMS
from sandbox.model import Schema, Status
from sandbox.orphans import Roster
from sandbox.text import lasting
from tests.unit import creation, evidence, routing, slowness

ROOT = handbook.FOLDER.parents[1]
EVERY = pytest.mark.parametrize("runbook", RUNBOOKS.values(), ids=RUNBOOKS)
ALWAYS = ("Trigger", "Symptoms", "Looks at", "May change it", "Undo")
ESCAPE = "\x1b"


usage_of = cache(tasks.usage_of)


def _handbook() -> dict[str, str]:
    return handbook.made(RUNBOOKS.values(), usage_of)


# ---- what a runbook says of itself


@EVERY
def test_every_runbook_tells_all_that_its_page_needs(runbook: Runbook) -> None:
    page = runbook.page
    told = {name: len(text.split()) for name, text in page.sections.items()}
    assert set(ALWAYS) <= told.keys() <= set(SECTIONS)
    assert min(told.values()) > 2
    assert len(page.examples) in (2, 3, 4)
    assert page.looks
    assert page.thresholds


def test_a_section_is_told_as_it_stands_without_its_indentation() -> None:
    text = "Name.\n\nTrigger    it is\n           late.\nMay change it these:\n           1. one\n              more;\n           2. two.\n"
    told = {"Trigger": "it is\nlate.", "May change it": "these:\n1. one\n   more;\n2. two."}
    assert Page(text=text).sections == told


@EVERY
def test_an_alarm_is_told_by_its_own_figures(runbook: Runbook) -> None:
    trigger = runbook.page.sections["Trigger"]
    if not runbook.alarm:
        assert "alarm sandbox-" not in trigger
        return
    watch = ALARMS[runbook.alarm]
    assert trigger.startswith(f"alarm {watch.alarm}: {watch.metric} over {watch.threshold} ")
    assert watch.metric in PUBLISHERS


@pytest.mark.parametrize(
    ("name", "threshold"),
    [
        ("rb-sb-003", "used within"),
        ("rb-sb-003", "in quarantine for"),
        ("rb-sb-005", "idle in a transaction"),
        ("rb-sb-005", "in quarantine for"),
        ("purge-quarantine", "in quarantine for"),
        ("database-maintenance", "kept for"),
    ],
)
def test_figures_in_prose_are_those_of_the_code(name: str, threshold: str) -> None:
    page = RUNBOOKS[name].page
    [value] = [each.value for each in page.thresholds if each.name == threshold]
    assert value in " ".join(page.text.split())


def test_every_alarm_calls_for_a_runbook() -> None:
    assert {each.alarm for each in RUNBOOKS.values() if each.alarm} == set(ALARMS)


@EVERY
def test_examples_are_commands_that_there_are(runbook: Runbook) -> None:
    commands = [command for command, _ in runbook.page.examples]
    assert any(command.startswith(f"{runbook.name} ") for command in commands)
    for command in commands:
        [called] = Parser(contexts=Collection.from_module(tasks).to_contexts()).parse_argv(
            shlex.split(command)
        )
        assert called.args["env"].value == "production"


def test_schedules_are_told_alike_by_who_publishes_and_by_what_is_deployed() -> None:
    index = _handbook()["README.md"]
    rates = dict(re.findall(r"^\| `invoke ([a-z-]+)` \| (every [^|]+) \|", index, re.MULTILINE))
    assert rates == {
        "cleanup": "every 15 minutes",
        "orphan-detection": "every day",
        "publish-metrics": "every 5 minutes",
    }
    assert PUBLISHERS["CleanupFailures"].endswith(f", {rates['cleanup']}")
    assert PUBLISHERS["GuildMappingCount"].endswith(f", {rates['publish-metrics']}")
    assert PUBLISHERS["OrphanedResourceCount"].endswith("`invoke orphan-detection`, daily")


# ---- a page and the findings show the same commands

GONE = Unknown("permission denied", error=Denied("permission denied"))
NAMES = re.compile(
    r"PREFIX-[\w-]+|\b[A-Z_]+(?:_LOGS|_RULE|_FAMILY|_SERVICE|_GROUPS|_INSTANCE|_ARN)\b|\b(?:P?ID|CACHE|CLUSTER|CUTOFF|GUILD|NAME|SCHEMA|STATEMENT)\b"
)


def _blind(kind: Any, **known: Any) -> Any:
    """Return evidence of which nothing could be read."""
    names = (each.name for each in fields(kind) if each.init)
    return kind(now=evidence.NOW, **({name: GONE for name in names if name != "now"} | known))


def _orphans() -> Orphaned:
    """Return a schema and keys that a destroyed sandbox left."""
    gone = evidence.row(1, Status.DESTROYED)
    schema = Schema(
        name=f"sandbox_{gone.id}", oid=16385, owner="app", tables=3, bytes=1, rows_estimate=1, writes=1
    )
    return Orphaned(
        now=evidence.NOW,
        alarm=Known(None),
        database=Known(Database(roster=Roster([gone]), schemas=(schema,))),
        keys=Known(Survey(families={str(gone.id): 2}, parked={})),
        listeners=Known([]),
        uses=Known(Use(sessions=(), activity={})),
        families=Known({}),
    )


def _overdue() -> list[Overdue]:
    late, held = evidence.behind(7), evidence.behind(8)
    in_the_way = {"blockers": Known((evidence.blocker(late),)), "holders": Known((evidence.holder(held),))}
    behind = evidence.healthy(database=evidence.database(late, held), **in_the_way)
    return [evidence.healthy(), behind, _blind(Overdue, stack=Stack())]


def _worlds() -> dict[str, list[Any]]:
    """Return for each runbook where all is well, where something is wrong, and where nothing can be read."""
    stack, unasked = {"stack": Stack()}, dict.fromkeys(("overdue", "quarantine", "tried"))
    on_its_way = routing.healthy(way=routing.way())
    stopped = [_blind(Emergency, actor="ada", **stack)]
    kept = {"environment": "x", "keep": timedelta(days=90), "address": None}
    return {
        "rb-sb-001": _overdue(),
        "rb-sb-002": _overdue(),
        "rb-sb-003": [_orphans(), _blind(Orphaned)],
        "rb-sb-004": [routing.healthy(), on_its_way, _blind(Routing, way=None, canary=None, **stack)],
        "rb-sb-005": [creation.facts(), _blind(Creation, fresh=UUID(int=1), **unasked, **stack)],
        "rb-sb-006": [slowness.healthy(), _blind(Slowness, **stack)],
        "purge-quarantine": [_blind(Quarantine)],
        "database-maintenance": [_blind(Maintenance, **kept)],
        "emergency-stop": stopped,
        "emergency-resume": stopped,
        "mass-cleanup": [_blind(Mass)],
    }


def _pattern(look: Look) -> str:
    """Return what a look's command is like with the names filled in."""
    literal = NAMES.split(look.command)
    return ".+?".join(map(re.escape, literal))


@EVERY
def test_the_page_has_the_command_of_every_finding(runbook: Runbook) -> None:
    found = [finding for world in _worlds()[runbook.name] for finding in runbook.diagnose(world)]
    sources = {finding.source for finding in found if finding.source}
    assert sources
    known = "|".join(map(_pattern, runbook.page.looks))
    several = re.compile(rf"(?:{known})(?:; (?:{known}))*")
    assert [source for source in sources if not several.fullmatch(source)] == []


# ---- what is committed


def test_the_handbook_in_the_repository_is_as_the_runbooks_say() -> None:
    assert handbook.differing(_handbook()) == [], "write it anew: ./inv docs"


def test_what_differs_is_named_and_put_right(tmp_path: Path) -> None:
    wanted = {"one.md": "1\n", "two.md": "2\n", "three.md": "3\n"}
    (tmp_path / "one.md").write_text("1\n")
    (tmp_path / "two.md").write_text("old\n")
    (tmp_path / "gone.md").write_text(f"{pages.MARK}\nold\n")
    (tmp_path / "notes.md").write_text("somebody's own\n")
    strange = "notes.md is not generated: remove it yourself"
    found = ["three.md is missing", "two.md is stale", "gone.md is left over", strange]
    assert handbook.differing(wanted, tmp_path) == found
    done = ["wrote two.md", "wrote three.md", "took away gone.md", strange]
    assert handbook.write(wanted, tmp_path) == done
    assert handbook.differing(wanted, tmp_path) == handbook.write(wanted, tmp_path) == [strange]
    assert (tmp_path / "notes.md").read_text() == "somebody's own\n"


def test_a_folder_that_is_not_there_lacks_all_pages(tmp_path: Path) -> None:
    assert handbook.differing({"one.md": "1\n"}, tmp_path / "docs") == ["one.md is missing"]
    assert handbook.write({"one.md": "1\n"}, tmp_path / "docs") == ["wrote one.md"]


# ---- Markdown that GitHub shows


def _slugs(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def _links(text: str) -> Iterator[str]:
    for token in Markdown(text).parsed:
        for each in token.children or ():
            if each.type == "link_open":
                yield str(each.attrs["href"])


def test_links_lead_somewhere() -> None:
    made, broken = _handbook(), []
    for name, text in made.items():
        links = list(_links(text))
        assert links
        for link in links:
            path, _, anchor = link.partition("#")
            target = (handbook.FOLDER / (path or name)).resolve()
            if not target.exists() or (anchor and anchor not in _slugs(target.read_text(encoding="utf-8"))):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_the_index_leads_to_every_page_and_to_the_other_documents() -> None:
    made = _handbook()
    links = set(_links(made["README.md"]))
    assert made.keys() - {"README.md"} <= links
    assert {"../pagerduty.md", "../cli.md", "../quick-reference.md"} <= links
    assert "docs/runbooks/README.md" in set(_links((ROOT / "README.md").read_text(encoding="utf-8")))


def test_tables_have_as_many_cells_in_every_row() -> None:
    for name, text in _handbook().items():
        blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
        assert blocks, name
        for block in blocks:
            rows = [len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()]
            assert len(rows) > 2
            assert len(set(rows)) == 1, block
        tables = sum(token.type == "table_open" for token in Markdown(text).parsed)
        assert tables == len(blocks), name


def test_emergencies_come_first_then_what_an_alarm_calls_for() -> None:
    index = _handbook()["README.md"]
    names = (
        "emergency-stop",
        "emergency-resume",
        *(each.name for each in RUNBOOKS.values() if not each.urgent),
    )
    places = [index.index(f"invoke {RUNBOOKS[name].page.examples[0][0]}") for name in names]
    assert places == sorted(places)
    assert places[0] < 700


def test_the_index_tells_whom_an_environment_names_to_be_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "environments"
    folder.mkdir()
    (folder / "caladan.toml").write_text('[stack]\nescalation = "Leto | the duke"\n')
    (folder / "salusa.toml").write_text("[stack]\n")
    monkeypatch.setattr(handbook, "ENVIRONMENTS", folder)
    index = _handbook()["README.md"]
    assert "| [caladan](../../environments/caladan.toml) | Leto \\| the duke |" in index
    assert (
        "| [salusa](../../environments/salusa.toml) | nobody is named yet: set `escalation` there |" in index
    )


def test_outside_of_the_repository_no_handbook_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(handbook, "_ROOT", tmp_path)
    with pytest.raises(ArrakisError, match=r"there is no .*jobs\.tf"):
        _handbook()


# ---- what is put in

MADE_UP = replace(
    RUNBOOKS["rb-sb-003"],
    page=replace(
        RUNBOOKS["rb-sb-003"].page,
        looks=(Look(what="all", command="redis-cli --scan | wc -l"),),
        thresholds=(Threshold(name="a | b", value="3", meaning="c | d"),),
        reads=Rights(redis=frozenset({"+config|get"}), aws=frozenset({"logs:Get"})),
        writes=Rights(redis=frozenset({"+config|get", "+del"})),
    ),
)


def test_bars_end_no_cell_and_commands_stand_as_they_are_typed() -> None:
    text = pages.render(MADE_UP, [("--only=a|b", "this | that")])
    assert "| a \\| b | 3 | c \\| d |" in text
    assert "| `--only=a\\|b` | this \\| that |" in text
    assert "\nredis-cli --scan | wc -l\n" in text


def test_a_right_is_told_once_for_the_first_that_needs_it() -> None:
    rows = [
        line
        for line in pages.render(MADE_UP, [("-x", "y")]).splitlines()
        if line.startswith(("| Redis", "| AWS", "| Post"))
    ]
    assert rows == [
        "| Redis | `+config\\|get` | look |",
        "| Redis | `+del` | apply |",
        "| AWS | `logs:Get` | look |",
    ]


def test_without_rights_there_is_no_table_of_them() -> None:
    bare = replace(MADE_UP, page=replace(MADE_UP.page, reads=Rights(), writes=Rights()))
    assert "## Rights" in pages.render(MADE_UP, [])
    assert "## Rights" not in pages.render(bare, [])


# ---- in a terminal


def _plain(runbook: Runbook, width: int = 80) -> str:
    return pages.explained(runbook, usage_of(runbook.name), width=width, colour=False)


@EVERY
def test_a_page_fits_80_columns_but_for_commands_which_stay_whole(runbook: Runbook) -> None:
    shown = _plain(runbook).splitlines()
    commands = [f"  invoke {command}" for command, _ in runbook.page.examples]
    commands += [f"  {look.command}" for look in runbook.page.looks]
    assert [command for command in commands if command not in shown] == []
    assert [line for line in shown if len(line) > 80 and line not in commands] == []


@EVERY
def test_without_colour_a_page_is_plain_text(runbook: Runbook) -> None:
    shown = _plain(runbook)
    assert ESCAPE not in shown
    assert pages.MARK not in shown
    assert "\n\n\n" not in shown
    assert [line for line in shown.splitlines() if line != line.rstrip()] == []


def test_nothing_of_a_table_is_cut_off() -> None:
    shown = re.sub(r"\s+", "", _plain(RUNBOOKS["rb-sb-003"], width=40))
    assert "…" not in shown.replace("quarantine_…", "")
    for right in RUNBOOKS["rb-sb-003"].page.reads.aws:
        assert right.partition(":")[0] in shown


def test_colour_adds_colour_and_takes_nothing_away() -> None:
    runbook = RUNBOOKS["rb-sb-004"]
    coloured = pages.explained(runbook, usage_of(runbook.name), width=80, colour=True)
    assert f"{ESCAPE}[" in coloured
    bare = re.sub(rf"{ESCAPE}\[[0-9;]*m", "", coloured)
    assert ESCAPE not in bare
    assert re.findall(r"\w+", bare) == re.findall(r"\w+", _plain(runbook))


def test_what_is_to_be_typed_is_told_from_the_words_without_colour() -> None:
    assert "`drop N`" in _plain(RUNBOOKS["rb-sb-003"])


def test_wide_terminals_get_lines_that_can_still_be_read() -> None:
    prose = [line for line in _plain(RUNBOOKS["rb-sb-001"], width=1_000).splitlines() if line[:1].isalpha()]
    assert 100 < max(map(len, prose)) <= 120


def test_commands_are_told_as_this_toolkit_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOKS_COMMAND", "./inv")
    runbook = RUNBOOKS["rb-sb-001"]
    assert "\n  ./inv rb-sb-001 --env production\n" in _plain(runbook)
    assert "`./inv undo --run ID`" in _plain(runbook)
    assert "\ninvoke rb-sb-001 --env production\n" in pages.render(runbook, usage_of(runbook.name))


@pytest.mark.parametrize(
    ("duration", "told"),
    [
        (timedelta(seconds=1), "1 second"),
        (timedelta(seconds=2), "2 seconds"),
        (timedelta(seconds=0.5), "0.5 seconds"),
        (timedelta(seconds=90), "90 seconds"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(minutes=45), "45 minutes"),
        (timedelta(minutes=90), "90 minutes"),
        (timedelta(hours=1), "1 hour"),
        (timedelta(hours=24), "24 hours"),
        (timedelta(hours=72), "72 hours"),
        (timedelta(hours=100), "100 hours"),
        (timedelta(days=7), "7 days"),
    ],
)
def test_a_duration_is_told_exactly(duration: timedelta, told: str) -> None:
    assert lasting(duration) == told
