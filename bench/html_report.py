"""How long a diagnosis of very many findings takes to become the page that `--report` writes."""

from datetime import UTC, datetime
from functools import partial

from bench.keyspaces import ids
from bench.measuring import Claim, Figure, Line, Result, Size, in_turns, timed
from runbooks.engine.environment import Environment
from runbooks.engine.operate import Diagnosis
from runbooks.orphaned.evidence import Database, Facts, Use
from runbooks.rb_sb_003 import RUNBOOK
from runbooks.reports import document, html
from sandbox.facts import Known
from sandbox.keyspace import FamilyUse, Survey
from sandbox.model import Schema
from sandbox.orphans import Roster

__all__ = ["LINE"]

_FINDINGS = 10_000
_SECONDS = 2.0
_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def _facts(orphans: int) -> Facts:
    """Return what RB-SB-003 sees where so many schemas and key families in all are nobody's."""
    tokens = [str(id) for id in ids(orphans)]
    families, named = tokens[::2], tokens[1::2]
    schemas = [
        Schema(
            name=f"sandbox_{token}",
            oid=number,
            owner="arrakis_app",
            tables=3,
            bytes=98_304,
            rows_estimate=310,
            writes=310,
            last_maintenance=None,
        )
        for number, token in enumerate(named)
    ]
    use = FamilyUse(keys=50, bytes=4_400, idle_seconds=86_400)
    return Facts(
        now=_AT,
        alarm=Known(None),
        database=Known(Database(roster=Roster([]), schemas=tuple(schemas))),
        keys=Known(Survey(families=dict.fromkeys(families, 50), parked={})),
        listeners=Known([]),
        uses=Known(Use(sessions=(), activity={schema.name: _AT for schema in schemas})),
        families=Known(dict.fromkeys(families, use)),
    )


def _diagnosis(orphans: int) -> Diagnosis:
    environment = Environment(name="production", database_url="", redis_url="", nats_url="")
    findings = tuple(RUNBOOK.diagnose(_facts(orphans)))
    return Diagnosis(
        at=_AT, by="bench", runbook=RUNBOOK, environment=environment, findings=findings, plan=None
    )


def _page(found: Diagnosis) -> str:
    return html.render(document.diagnosed(found))


def _run(size: Size) -> Result:
    found = _diagnosis(size.of(_FINDINGS))
    took = in_turns({"page": partial(timed, partial(_page, found))}, size.rounds)["page"]
    return Result(
        figures=[
            Figure(name=f"page of {len(found.findings):,} findings", unit="s", values=took),
            Figure(name="its size", unit="MiB", values=[len(_page(found).encode()) / 2**20]),
        ],
        claims=[
            Claim(
                said=f"HTML report of {len(found.findings):,} findings", values=took, bound=_SECONDS, unit="s"
            )
        ],
        notes=[
            "From the findings to the page, the document that `--json` prints included; without a plan. No peer makes this page."
        ],
    )


LINE = Line(
    name="html_report",
    title="HTML report",
    on="10,000 findings of RB-SB-003",
    run=_run,
)
