"""What PostgreSQL did to answer a statement: EXPLAIN (ANALYZE, BUFFERS) read, drawn as a tree, and judged. Pure but for `Explained`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from diagnostics.postgres import shown
from sandbox.ports import SqlSnapshot

__all__ = [
    "MANY_ROWS",
    "SEE_PLAN",
    "Explained",
    "Fault",
    "Flaw",
    "Node",
    "Plan",
    "drawn",
    "flaws",
    "read_plan",
]

T = TypeVar("T")

SEE_PLAN = 'psql -c "EXPLAIN (ANALYZE, BUFFERS) $(cat sql/{statement}.sql)"  # with values in place of %(…)s'

MANY_ROWS = 10_000
"""Rows that it takes no index to leave out: fewer are read in a millisecond or two."""

_FEW = 0.01  # of the rows read
_OFF = 10  # times too many or too few
_OFF_ROWS = 100  # an estimate below it misleads nobody
_MANY_BLOCKS = 1_000  # 8 MB
_JIT_SHARE, _JIT_MS = 0.5, 20.0
_BLOCK_KB = 8


class Flaw(StrEnum):
    """What can be wrong with a plan's node."""

    SEQUENTIAL = "sequential scan"
    REMOVED = "rows removed"
    ESTIMATE = "estimate"
    SPILL = "spill"
    LOSSY = "lossy bitmap"
    READS = "reads"
    JIT = "jit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of a plan. Rows are of one loop, planned and seen; milliseconds, blocks and `removed` are of all loops.

    `milliseconds` and the blocks hold those of its children. `removed` are the rows that its filter or a recheck left out.
    `spilled_kb` is what it wrote to disk for want of memory. A node that was never run has no loops.
    """

    kind: str
    relation: str
    index: str
    condition: str
    planned: float
    seen: float
    loops: float
    milliseconds: float
    hit: int
    read: int
    removed: float
    spilled_kb: int
    lossy: int
    children: tuple["Node", ...] = ()

    @property
    def rows(self) -> float:
        """How many rows it gave, in all loops."""
        return self.seen * self.loops

    @property
    def looked_at(self) -> float:
        """How many rows it looked at, in all loops."""
        return self.rows + self.removed

    @property
    def label(self) -> str:
        """What it does to what."""
        using = f" using {self.index}" if self.index else ""
        return f"{self.kind}{using}" + (f" on {self.relation}" if self.relation else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was done for a statement, named as its file; in milliseconds."""

    statement: str
    root: Node
    planning: float
    execution: float
    jit: float = 0.0

    @property
    def milliseconds(self) -> float:
        """How long it took in all."""
        return self.planning + self.execution

    def nodes(self) -> Iterator[Node]:
        """Yield every node, a parent before its children."""
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a plan, in words, and at which node."""

    flaw: Flaw
    node: Node
    words: str


class Explained:
    """A snapshot that explains each statement before it answers it, and keeps the plans. Satisfies SqlSnapshot.

    So a function's own statements are explained, with the values that it really hands over.
    """

    def __init__(self, snapshot: SqlSnapshot) -> None:
        """Ask a snapshot."""
        self._snapshot = snapshot
        self.plans: list[Plan] = []

    def rows(self, statement: str, row: type[T], /, **params: object) -> list[T]:
        """Return the rows of a named statement, and keep its plan."""
        self.plans.append(read_plan(statement, self._snapshot.explain(statement, **params)))
        return self._snapshot.rows(statement, row, **params)

    def newest(self, columns: Mapping[str, Sequence[tuple[str, str]]], /) -> Mapping[str, Any]:
        """Return the newest moments; such a statement is made for the occasion, and not explained."""
        return self._snapshot.newest(columns)

    def explain(self, statement: str, /, **params: object) -> Mapping[str, Any]:
        """Return a statement's plan."""
        return self._snapshot.explain(statement, **params)


def read_plan(statement: str, document: Mapping[str, Any]) -> Plan:
    """Read what EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) says, of PostgreSQL 13 to 18."""
    timing = document.get("JIT", {}).get("Timing", {})
    return Plan(
        statement=statement,
        root=_node(document["Plan"]),
        planning=float(document.get("Planning Time", 0)),
        execution=float(document.get("Execution Time", 0)),
        jit=float(timing.get("Total", 0)),
    )


def flaws(plan: Plan) -> list[Fault]:
    """Say what is wrong with a plan, the most rows looked at first. Pure."""
    found = [fault for node, cut in _run(plan.root) for fault in _faults(node, cut_short=cut)]
    found.sort(key=lambda fault: (list(Flaw).index(fault.flaw), -fault.node.looked_at))
    if plan.jit >= _JIT_MS and plan.jit >= plan.execution * _JIT_SHARE:
        words = f"just-in-time compilation took {plan.jit:.0f} of {plan.execution:.0f} ms: it is worth nothing here"
        found.append(Fault(flaw=Flaw.JIT, node=plan.root, words=words))
    return found


def drawn(plan: Plan, *, width: int = 80) -> list[str]:
    """Return a plan as lines of at most `width` columns: what is done, and below it rows, loops, time and blocks."""
    lines = _drawn(plan.root, head="", rest="", width=width)
    return [*lines, f"planning {_ms(plan.planning)}, execution {_ms(plan.execution)}"[:width]]


def _node(raw: Mapping[str, Any]) -> Node:
    loops = float(raw.get("Actual Loops", 0))
    conditions = (raw.get(name) for name in ("Index Cond", "Hash Cond", "Merge Cond", "Recheck Cond"))
    removed = sum(
        float(raw.get(f"Rows Removed by {what}", 0)) for what in ("Filter", "Index Recheck", "Join Filter")
    )
    parallel = "Parallel" if raw.get("Parallel Aware") else ""
    strategy = {"Hashed": "Hash", "Sorted": "Group"}.get(str(raw.get("Strategy")), "")
    return Node(
        kind=" ".join(filter(None, (parallel, strategy, str(raw["Node Type"])))),
        relation=str(raw.get("Relation Name") or raw.get("Function Name") or ""),
        index=str(raw.get("Index Name") or ""),
        condition=shown(
            str(raw.get("Filter") or raw.get("Join Filter") or next(filter(None, conditions), ""))
        ),
        planned=float(raw.get("Plan Rows", 0)),
        seen=float(raw.get("Actual Rows", 0)),
        loops=loops,
        milliseconds=float(raw.get("Actual Total Time", 0)) * loops,
        hit=int(raw.get("Shared Hit Blocks", 0)),
        read=int(raw.get("Shared Read Blocks", 0)),
        removed=removed * loops,  # it is told for one loop, on the average
        spilled_kb=_spilled(raw),
        lossy=int(raw.get("Lossy Heap Blocks", 0)),
        children=tuple(map(_node, raw.get("Plans", ()))),
    )


def _spilled(raw: Mapping[str, Any]) -> int:
    """What a sort, a hash table or an aggregate wrote to disk, kB."""
    if raw.get("Sort Space Type") == "Disk":
        return int(raw.get("Sort Space Used", 0))
    if int(raw.get("Hash Batches", 1)) > 1:
        return int(raw.get("Temp Written Blocks", 0)) * _BLOCK_KB or 1
    return int(raw.get("Disk Usage", 0))


def _run(node: Node, *, cut_short: bool = False) -> Iterator[tuple[Node, bool]]:
    """Yield the nodes that were run, and whether something above might have had enough of its rows before the end."""
    if not node.loops:
        return
    yield node, cut_short
    for child in node.children:
        yield from _run(child, cut_short=cut_short or node.kind in ("Limit", "Merge Join"))


def _faults(node: Node, *, cut_short: bool) -> Iterator[Fault]:
    scan = "Scan" in node.kind
    wasted = node.removed >= MANY_ROWS and node.rows <= node.looked_at * _FEW
    if wasted and "Seq Scan" in node.kind:
        words = f"reads all {_number(node.looked_at)} rows of {node.relation} for {_number(node.rows) if node.rows else 'none'}: no index is used"
        yield Fault(flaw=Flaw.SEQUENTIAL, node=node, words=f"{words} for {node.condition}")
    elif wasted:
        where = f"{node.kind} on {node.relation}" if scan else node.kind
        words = f"{where} looks at {_number(node.looked_at)} rows and leaves out all{f' but {_number(node.rows)}' if node.rows else ''}"
        yield Fault(flaw=Flaw.REMOVED, node=node, words=words)
    most, least = max(node.planned, node.seen), max(1.0, min(node.planned, node.seen))
    if scan and not cut_short and most >= _OFF_ROWS and most / least >= _OFF:
        words = f"{node.label}: {_number(node.planned)} rows were expected, {_number(node.seen)} came"
        yield Fault(flaw=Flaw.ESTIMATE, node=node, words=words)
    if node.spilled_kb:
        words = f"{node.kind} wrote {_number(node.spilled_kb)} kB to disk: work_mem is too small for it"
        yield Fault(flaw=Flaw.SPILL, node=node, words=words)
    if node.lossy:
        words = f"{node.label}: the bitmap did not fit into work_mem, so {_number(node.lossy)} blocks were read whole"
        yield Fault(flaw=Flaw.LOSSY, node=node, words=words)
    own = node.read - sum(child.read for child in node.children)
    if scan and own >= _MANY_BLOCKS and own >= node.hit:
        words = f"{node.label}: {_number(own)} blocks ({own * _BLOCK_KB // 1024} MB) came from disk, {_number(node.hit)} from memory"
        yield Fault(flaw=Flaw.READS, node=node, words=words)


def _drawn(node: Node, *, head: str, rest: str, width: int) -> list[str]:
    """A node on two lines: what it does, then what it cost; its children below it, each behind its own line."""
    if node.loops:
        loops = f" × {_number(node.loops)} loops" if node.loops > 1 else ""
        blocks = f", {_number(node.hit)} hit" + (f" + {_number(node.read)} read" if node.read else "")
        rows = "row" if _number(node.seen) == "1" else "rows"
        cost = f"{_number(node.seen)} {rows} (est. {_number(node.planned)}){loops}, {_ms(node.milliseconds)}{blocks}"
        cost += f", {_number(node.removed)} left out" if node.removed else ""
    else:
        cost = "never run"
    stem = "│  " if node.children else "   "
    lines = [_cut(head + node.label, width), _cut(f"{rest}{stem}{cost}", width)]
    for number, child in enumerate(node.children, 1):
        last = number == len(node.children)
        lines += _drawn(
            child, head=rest + ("└─ " if last else "├─ "), rest=rest + ("   " if last else "│  "), width=width
        )
    return lines


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"
