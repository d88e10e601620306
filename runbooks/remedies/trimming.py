"""The audit log trimmed of its old rows, which are archived before that, or lost."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import IO, TypeVar
from uuid import UUID

from diagnostics.upkeep import AUDIT_LOG, Log, count_old, walk
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation, Resource, Reversibility, State
from runbooks.rights import TRIMMING
from sandbox import archive, depots
from sandbox.archive import Damaged, Row, Summary
from sandbox.depots import KeepingDepot
from sandbox.errors import ArrakisError, Missing
from sandbox.ports import SqlTransaction
from sandbox.stride import Stride

__all__ = ["Archive", "TrimAuditLog", "trim_audit_log"]

T = TypeVar("T")

_FIRST, _LEAST, _MOST = 500, 50, 2_500  # rows of one transaction; more would only make others wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Where the rows go that are trimmed: the place, the archive's name there, and how its first line tells it from others."""

    address: str
    name: str
    header: Mapping[str, str]

    @classmethod
    def of(cls, log: Log, *, address: str, environment: str, database: str, plan: str) -> "Archive":
        """Return the archive of what is old: its name tells the environment, the cutoff, and how the plan's id begins."""
        named = re.sub(r"[^\w.-]", "-", environment)
        return cls(
            address=address,
            name=f"{AUDIT_LOG}-{named}-before-{log.cutoff:%Y%m%dT%H%M%SZ}-{plan}.jsonl.gz",
            header={
                "archive": f"public.{AUDIT_LOG}",
                "environment": environment,
                "database": database,
                "before": log.cutoff.isoformat(),
                "plan": plan,
            },
        )


def trim_audit_log(log: Log, *, size: int, kept_in: Archive | None, reason: str) -> Action:
    """Return the action that deletes old audit rows of about `size` bytes; only with an archive it can be undone."""
    return Action(
        id="",
        verb=TrimAuditLog.verb,
        resource=Resource(kind="audit rows", id=AUDIT_LOG),
        before={
            "rows": log.rows,
            "bytes": size,
            "cutoff": log.cutoff.isoformat(),
            "kept": [str(each.id) for each in log.kept],
            "archive": asdict(kept_in) if kept_in else None,
        },
        after={"rows": 0},
        reason=reason,
        reversibility=Reversibility.REVERSIBLE if kept_in else Reversibility.IRREVERSIBLE,
    )


class TrimAuditLog:
    """Deletes the audit rows that are older than the plan's cutoff, a few at a time, each time in a transaction of its own.

    With an archive all of them are written there at first and read back from where they lie; then just those are deleted
    that are in it. Undone by putting these back. An archive that is there already is this plan's, of a run that was
    interrupted: it is checked, and used again.
    """

    verb = "trim audit log"
    rights = TRIMMING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate
        self._kept: dict[str, Summary] = {}  # by the archive's name, what it holds

    def observe(self, action: Action) -> Observation:
        """Count what is left of them. When they are to be put back: what is there of those in the archive."""
        if action.verb != self.verb:
            return self._put_back(action)
        planned, kept_in = action.before["rows"], _archive(action)
        left = count_old(self._gate.read.sql, _cutoff(action), kept=action.before["kept"])
        old = f"older than {_cutoff(action):%Y-%m-%d %H:%M} UTC"
        told = f"{left:,} of {planned:,} rows {old} are there"
        summary = self._kept.get(kept_in.name) if kept_in else None
        evidence = {"left": left, **({"archived": asdict(summary)} if summary else {})}
        state = State.PARTLY
        if left == 0:
            state, told = State.AFTER, f"none of {planned:,} rows {old} is left"
            told += f"; they lie in {kept_in.address}/{kept_in.name}" if kept_in and summary else ""
        elif left == planned:
            state = State.BEFORE
        elif left > planned:
            state, told = State.CHANGED, f"{told}: some were put back since the plan"
        elif kept_in and not self._depot(kept_in).holds(kept_in.name):
            state, told = State.CHANGED, f"{told}, and there is no {kept_in.name} in {kept_in.address}"
        return Observation(state=state, reason=told, evidence=evidence)

    def in_use(self, action: Action) -> str | None:
        """Nobody is asked: what others rest on is kept, and nobody waits for the rest."""
        return None

    def apply(self, action: Action) -> None:
        """Archive them, if that was planned, and make sure of it; then delete them."""
        kept_in = _archive(action)
        if kept_in is None:
            self._delete(action, self._found(action))
            return
        made = None
        if not self._depot(kept_in).holds(kept_in.name):
            made = self._write(action, kept_in)
        with self._checked(action, kept_in) as (file, summary):
            if made and made != summary:
                raise Damaged(f"{made.rows:,} rows were written, and {summary.rows:,} other ones read back")
            self._delete(action, (_keys(row)[0] for row in archive.read(file, kept_in.header)))

    def revert(self, action: Action) -> None:
        """Put those back that are in the archive, but for those that are there, or whose sandbox's row is gone."""
        kept_in = _insist_on(_archive(action))
        with self._checked(action, kept_in) as (file, summary):

            def put_back(transaction: SqlTransaction, rows: Sequence[Row]) -> None:
                lines = ",".join(row.line for row in rows)
                transaction.execute("write/maintenance/restore", rows=f"[{lines}]")

            self._in_steps("put back", summary.rows, archive.read(file, kept_in.header), put_back)

    def _delete(self, action: Action, ids: Iterable[UUID]) -> None:
        cutoff, kept = _cutoff(action), action.before["kept"]

        def trim(transaction: SqlTransaction, ids: Sequence[UUID]) -> None:
            transaction.execute("write/maintenance/trim", ids=ids, cutoff=cutoff, kept=kept)
            transaction.execute("write/maintenance/flush")

        self._in_steps("deleted", action.before["rows"], ids, trim)

    def _in_steps(
        self, what: str, total: int, things: Iterable[T], do: Callable[[SqlTransaction, Sequence[T]], None]
    ) -> None:
        """Do something to many things, some at a time, each time in a transaction that begins with the fence."""
        stride, done, left = Stride(_FIRST, least=_LEAST, most=_MOST), 0, iter(things)
        while some := list(islice(left, stride.size)):
            self._gate.pause()
            began = time.monotonic()
            with self._gate.write.sql.transaction() as transaction:
                self._gate.fence(transaction)
                do(transaction, some)
            stride.took(time.monotonic() - began)
            done += len(some)
            self._tell(what, done - len(some), done, total)

    def _found(self, action: Action) -> Iterator[UUID]:
        """Yield the ids of the rows that are to go, while those before them go."""
        found = walk(self._gate.read.sql, "old_ids", _Id, cutoff=_cutoff(action), kept=action.before["kept"])
        return (row.id for rows in found for row in rows)

    def _write(self, action: Action, kept_in: Archive) -> Summary:
        """Write the archive. Raises ArrakisError where there are not as many rows as were planned: then there is none."""
        planned = action.before["rows"]

        def write(file: IO[bytes]) -> Summary:
            made = archive.write(file, kept_in.header, self._lines(action))
            if made.rows != planned:
                raise ArrakisError(
                    f"the audit log changed meanwhile: {made.rows:,} old rows in place of {planned:,}",
                    hint="nothing was deleted; run the runbook again",
                )
            return made

        return self._depot(kept_in).keep(kept_in.name, write)

    def _lines(self, action: Action) -> Iterator[str]:
        read, done = self._gate.read.sql, 0
        for rows in walk(read, "old_rows", _Line, cutoff=_cutoff(action), kept=action.before["kept"]):
            self._gate.pause()
            yield from (row.line for row in rows)
            done += len(rows)
            self._tell("archived", done - len(rows), done, action.before["rows"])

    @contextmanager
    def _checked(self, action: Action, kept_in: Archive) -> Iterator[tuple[IO[bytes], Summary]]:
        """Fetch an archive from where it lies, and make sure that it is whole and of as many rows as were planned."""
        with self._depot(kept_in).fetch(kept_in.name) as file:
            summary = archive.check(file, kept_in.header, _keys)
            if summary.rows != action.before["rows"]:
                raise Damaged(f"it has {summary.rows:,} rows in place of {action.before['rows']:,}")
            self._kept[kept_in.name] = summary
            yield file, summary

    def _put_back(self, action: Action) -> Observation:
        """Look which of an archive's rows are there, which could be, and which cannot, as their sandbox is gone."""
        kept_in = _insist_on(_archive(action))
        present = absent = orphaned = 0
        try:
            with self._checked(action, kept_in) as (file, _):
                for seen in self._looked_up(archive.read(file, kept_in.header)):
                    present, absent = present + seen.present, absent + seen.absent
                    orphaned += seen.orphaned
        except Missing as error:
            return Observation(state=State.CHANGED, reason=str(error))
        told = f"{present:,} of {present + absent + orphaned:,} rows are there"
        told += f"; the sandboxes of {orphaned:,} are gone, and they with them" if orphaned else ""
        evidence = {"present": present, "absent": absent, "orphaned": orphaned}
        state = State.PARTLY if present else State.AFTER
        return Observation(state=state if absent else State.BEFORE, reason=told, evidence=evidence)

    def _looked_up(self, rows: Iterator[Row]) -> Iterator["_Restored"]:
        while some := [_keys(row) for row in islice(rows, _MOST)]:
            ids, sandboxes = zip(*some, strict=True)
            with self._gate.read.sql.snapshot() as snapshot:
                yield from snapshot.rows(
                    "read/maintenance/restored", _Restored, ids=list(ids), sandboxes=list(sandboxes)
                )

    def _depot(self, kept_in: Archive) -> KeepingDepot:
        return depots.keeping(kept_in.address, self._gate.write.aws)

    def _tell(self, what: str, before: int, after: int, total: int) -> None:
        """Tell how far it has come, at each tenth."""
        if before * 10 // total != after * 10 // total:
            self._gate.tell(f"  {AUDIT_LOG}: {after:,} of {total:,} rows {what}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Id:
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Restored:
    present: int
    absent: int
    orphaned: int


def _keys(row: Row) -> tuple[UUID, UUID]:
    """A row's own id, and its sandbox's. Raises Damaged where it has none."""
    try:
        return UUID(row.fields["id"]), UUID(row.fields["sandbox_id"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged("a row of it has no id") from error


def _cutoff(action: Action) -> datetime:
    return datetime.fromisoformat(action.before["cutoff"])


def _archive(action: Action) -> Archive | None:
    planned = action.before["archive"]
    return Archive(**planned) if planned else None


def _insist_on(kept_in: Archive | None) -> Archive:
    if kept_in is None:
        raise ArrakisError("the rows were not archived: they are lost")
    return kept_in
