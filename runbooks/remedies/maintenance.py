"""A control table vacuumed, and its statistics gathered anew with it. Nothing is lost by that."""

import time
from datetime import datetime

from diagnostics.indexes import TABLES
from diagnostics.upkeep import Upkeep, Worker, read_upkeep, read_workers
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation, Resource, Reversibility, State
from runbooks.remedies.alone import run_alone
from runbooks.rights import MAINTAINING
from sandbox.errors import ArrakisError
from sandbox.ports import SqlSnapshot

__all__ = ["VacuumTable", "vacuum_table"]

_PATIENCE = 2 * 60 * 60.0  # seconds
_POLL, _SOON = 0.1, 5.0  # seconds between two looks at the statistics, and in all
_GIVE_WAY, _LONGEST_POLL = (
    60.0,
    2.0,
)  # seconds that an autovacuum is waited for, which a trim calls to the table


def vacuum_table(table: Upkeep, *, reason: str) -> Action:
    """Return the action that vacuums a control table. Nothing is lost by it: there is nothing to give back."""
    return Action(
        id="",
        verb=VacuumTable.verb,
        resource=Resource(kind="table", id=table.name),
        before={
            "name": table.name,
            "rows": table.live,
            "dead": table.dead,
            "bytes": table.bytes,
            "vacuumed_at": table.vacuumed_at.isoformat() if table.vacuumed_at else None,
        },
        after={"dead": 0},
        reason=reason,
        reversibility=Reversibility.REVERSIBLE,
    )


class VacuumTable:
    """Runs VACUUM (ANALYZE) on a control table, which keeps neither readers nor writers waiting. Nothing is to be taken back.

    A role that may not gets a warning only, and no error: only the statistics prove that it was there.
    """

    verb = "vacuum table"
    rights = MAINTAINING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate
        self._found: dict[str, Upkeep] = {}  # by name, the tables just before

    def observe(self, action: Action) -> Observation:
        """Look whether it was vacuumed by hand since the plan. Its undoing is done before it begins."""
        if action.verb != self.verb:
            return Observation(state=State.BEFORE, reason="there is nothing to take back")
        table = self._table(action)
        if table is None:
            return Observation(state=State.CHANGED, reason="there is no such table any more")
        before, at = action.before["vacuumed_at"], table.vacuumed_at
        evidence = {"rows": table.live, "dead": table.dead, "bytes": table.bytes}
        told = f"{table.dead:,} dead rows, {table.bytes / 2**20:.1f} MB"
        if at and (before is None or at > datetime.fromisoformat(before)):
            found = self._found.get(table.name)
            dead, size = (
                (found.dead, found.bytes) if found else (action.before["dead"], action.before["bytes"])
            )
            was = f"{dead:,} and {size / 2**20:.1f} MB before"
            reason = f"vacuumed at {at:%H:%M:%S} UTC: {told}; {was}"
            return Observation(state=State.AFTER, reason=reason, evidence=evidence)
        return Observation(state=State.BEFORE, reason=told, evidence=evidence)

    def in_use(self, action: Action) -> str | None:
        """Say who is at work on it in a way that VACUUM would wait for; autovacuum is given a minute to end."""

        def look() -> tuple[bool, str]:
            with self._gate.read.sql.snapshot() as snapshot:
                worker = _worker(snapshot, action.before["name"])
            return worker is None or worker.kind != "autovacuum worker", worker.told if worker else ""

        late = self._gate.watch(action, look, pause=_POLL, longest=_LONGEST_POLL, patience=_GIVE_WAY)
        return late or look()[1] or None

    def apply(self, action: Action) -> None:
        """Vacuum it, and wait until the statistics say so."""
        name = action.before["name"]
        if name not in TABLES:
            raise ArrakisError(f"{name} is none of the control tables")

        def progress(snapshot: SqlSnapshot) -> str | None:
            worker = _worker(snapshot, name)
            return worker.progress if worker else None

        if found := self._table(action):
            self._found[name] = found
        run_alone(self._gate, name, f"VACUUM (ANALYZE) public.{name}", patience=_PATIENCE, progress=progress)
        end = time.monotonic() + _SOON
        while self.observe(action).state is not State.AFTER:
            if time.monotonic() > end:
                raise ArrakisError(
                    f"{name} was not vacuumed: PostgreSQL passes it over for a role that may not",
                    hint="its owner may, the database's owner, or a role with MAINTAIN",
                )
            time.sleep(_POLL)

    def revert(self, action: Action) -> None:
        """Nothing is to be done."""

    def _table(self, action: Action) -> Upkeep | None:
        with self._gate.read.sql.snapshot() as snapshot:
            return read_upkeep(snapshot).get(action.before["name"])


def _worker(snapshot: SqlSnapshot, table: str) -> Worker | None:
    return next((each for each in read_workers(snapshot) if each.table == table), None)
