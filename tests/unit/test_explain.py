"""Plans read, judged and drawn: pure cases."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.explain import Fault, Flaw, Node, Plan, drawn, flaws, read_plan
from tests.unit.slowness import node, plan

SCAN: dict[str, Any] = {
    "Node Type": "Seq Scan",
    "Parallel Aware": False,
    "Relation Name": "sandboxes",
    "Plan Rows": 1,
    "Actual Total Time": 12.9,
    "Actual Rows": 1,
    "Actual Loops": 1,
    "Filter": "((name)::text = 'box-50'::text)",
    "Rows Removed by Filter": 199_999,
    "Shared Hit Blocks": 2772,
    "Shared Read Blocks": 89,
}


def read(**changes: Any) -> Plan:
    return read_plan("read/x", {"Plan": {**SCAN, **changes}, "Planning Time": 0.4, "Execution Time": 13.0})


def test_what_explain_says_is_read_and_no_value_is_kept() -> None:
    seen = read()
    assert (seen.statement, seen.planning, seen.execution, seen.jit) == ("read/x", 0.4, 13.0, 0.0)
    assert seen.root == Node(
        kind="Seq Scan",
        relation="sandboxes",
        index="",
        condition="((name)::text = '…'::text)",
        planned=1,
        seen=1,
        loops=1,
        milliseconds=12.9,
        hit=2772,
        read=89,
        removed=199_999,
        spilled_kb=0,
        lossy=0,
    )


def test_rows_of_parallel_workers_are_added_up_as_postgresql_18_has_them_in_fractions() -> None:
    seen = read(
        **{"Parallel Aware": True, "Actual Rows": 0.5, "Actual Loops": 2, "Rows Removed by Filter": 100_000}
    )
    assert (seen.root.kind, seen.root.rows, seen.root.looked_at) == ("Parallel Seq Scan", 1, 200_001)
    [fault] = flaws(seen)
    assert fault.words == (
        "reads all 200,001 rows of sandboxes for 1: no index is used for ((name)::text = '…'::text)"
    )


def test_children_and_just_in_time_compilation_are_read() -> None:
    inner = {
        **SCAN,
        "Node Type": "Index Scan",
        "Index Name": "i",
        "Actual Loops": 3,
        "Actual Total Time": 2.0,
    }
    document = {
        "Plan": {"Node Type": "Aggregate", "Strategy": "Hashed", "Actual Loops": 1, "Plans": [SCAN, inner]},
        "Execution Time": 100.0,
        "JIT": {"Functions": 4, "Timing": {"Generation": {"Total": 1.0}, "Total": 80.0}},
    }
    seen = read_plan("read/x", document)
    assert [each.label for each in seen.nodes()] == [
        "Hash Aggregate",
        "Seq Scan on sandboxes",
        "Index Scan using i on sandboxes",
    ]
    assert [each.milliseconds for each in seen.nodes()] == [0, 12.9, 6.0]
    assert [fault.flaw for fault in flaws(seen)] == [Flaw.SEQUENTIAL, Flaw.REMOVED, Flaw.JIT]
    assert flaws(seen)[-1].words.startswith("just-in-time compilation took 80 of 100 ms")


@pytest.mark.parametrize(
    ("changes", "kb"),
    [
        ({"Sort Method": "external merge", "Sort Space Type": "Disk", "Sort Space Used": 8200}, 8200),
        ({"Sort Method": "quicksort", "Sort Space Type": "Memory", "Sort Space Used": 25}, 0),
        ({"Hash Batches": 4, "Temp Written Blocks": 10}, 80),
        ({"Hash Batches": 4}, 1),
        ({"Hash Batches": 1}, 0),
        ({"HashAgg Batches": 5, "Disk Usage": 512}, 512),
    ],
)
def test_what_is_written_to_disk_for_want_of_memory(changes: dict[str, Any], kb: int) -> None:
    assert read(**changes).root.spilled_kb == kb


WASTE: dict[str, Any] = {"kind": "Seq Scan", "removed": 50_000.0, "planned": 1.0}


@pytest.mark.parametrize(
    ("root", "found"),
    [
        (node(), []),
        (node(**WASTE), [Flaw.SEQUENTIAL]),
        (node(**WASTE, loops=0.0), []),
        (node(**{**WASTE, "removed": 9_999.0}), []),
        (
            node(**{**WASTE, "seen": 600.0, "planned": 600.0}),
            [],
        ),  # over one in a hundred: no index would do better
        (node(removed=50_000.0), [Flaw.REMOVED]),
        (node("Nested Loop", relation="", removed=50_000.0), [Flaw.REMOVED]),
        (node(planned=5_000.0, seen=400.0), [Flaw.ESTIMATE]),
        (node(planned=400.0, seen=5_000.0), [Flaw.ESTIMATE]),
        (node(planned=4_500.0, seen=500.0), []),
        (node(planned=99.0, seen=0.0), []),
        (node("Nested Loop", planned=5_000.0, seen=1.0), []),  # its scans are to blame
        (node("Limit", children=(node(planned=5_000.0),)), []),  # nobody wanted the others
        (node("Sort", spilled_kb=100), [Flaw.SPILL]),
        (node("Bitmap Heap Scan", lossy=12), [Flaw.LOSSY]),
        (node(read=2_000, hit=100), [Flaw.READS]),
        (node(read=2_000, hit=9_000), []),
        (node("Sort", read=2_000, hit=0, children=(node(read=2_000, hit=0),)), [Flaw.READS]),
        (node("Append", children=(node("Sort", spilled_kb=9), node(**WASTE))), [Flaw.SEQUENTIAL, Flaw.SPILL]),
    ],
)
def test_what_is_wrong_with_a_plan(root: Node, found: list[Flaw]) -> None:
    assert [fault.flaw for fault in flaws(plan(root))] == found


@pytest.mark.parametrize(
    ("root", "words"),
    [
        (node(removed=50_000.0), "Index Scan on sandboxes looks at 50,001 rows and leaves out all but 1"),
        (node(removed=50_000.0, seen=0.0), "Index Scan on sandboxes looks at 50,000 rows and leaves out all"),
        (
            node(**{**WASTE, "seen": 0.0}),
            "reads all 50,000 rows of sandboxes for none: no index is used for ((name)::text = '…'::text)",
        ),
        (
            node(planned=5_000.0),
            "Index Scan using sandboxes_name_unique on sandboxes: 5,000 rows were expected, 1 came",
        ),
        (node("Sort", spilled_kb=8_200), "Sort wrote 8,200 kB to disk: work_mem is too small for it"),
        (
            node("Bitmap Heap Scan", lossy=12),
            "Bitmap Heap Scan on sandboxes: the bitmap did not fit into work_mem, so 12 blocks were read whole",
        ),
        (
            node(read=2_560, hit=1),
            "Index Scan using sandboxes_name_unique on sandboxes: 2,560 blocks (20 MB) came from disk, 1 from memory",
        ),
    ],
)
def test_it_is_said_in_words(root: Node, words: str) -> None:
    assert [fault.words for fault in flaws(plan(root))] == [words]


def test_compilation_is_no_fault_where_it_is_short_or_the_statement_long() -> None:
    assert flaws(plan(jit=19.0, execution=20.0)) == []
    assert flaws(plan(jit=90.0, execution=200.0)) == []
    [fault] = flaws(plan(jit=90.0, execution=100.0))
    assert isinstance(fault, Fault)


def test_a_plan_is_drawn_as_a_tree() -> None:
    scan = node("Seq Scan", removed=12.0, read=5)
    never = node(loops=0.0)
    root = node("Nested Loop", relation="", children=(scan, node(loops=2.0, milliseconds=123.4), never))
    assert drawn(plan(root)) == [
        "Nested Loop",
        "│  1 row (est. 1), 0.1 ms, 3 hit",
        "├─ Seq Scan on sandboxes",
        "│     1 row (est. 1), 0.1 ms, 3 hit + 5 read, 12 left out",
        "├─ Index Scan using sandboxes_name_unique on sandboxes",
        "│     1 row (est. 1) × 2 loops, 123 ms, 3 hit",
        "└─ Index Scan using sandboxes_name_unique on sandboxes",
        "      never run",
        "planning 0.1 ms, execution 0.2 ms",
    ]


NUMBER = st.floats(0, 1e9)
KINDS = st.sampled_from(["Seq Scan", "Index Scan", "Sort", "Limit", "Hash Join", "Bitmap Heap Scan"])


def raw(children: Any) -> Any:
    return st.fixed_dictionaries(
        {"Node Type": KINDS, "Relation Name": st.text(max_size=90)},
        optional={
            "Actual Rows": NUMBER,
            "Plan Rows": NUMBER,
            "Actual Loops": st.integers(0, 10**6),
            "Actual Total Time": NUMBER,
            "Rows Removed by Filter": NUMBER,
            "Shared Read Blocks": st.integers(0, 10**9),
            "Shared Hit Blocks": st.integers(0, 10**9),
            "Filter": st.text(max_size=90),
            "Plans": st.lists(children, max_size=3),
        },
    )


@given(st.recursive(raw(st.just(SCAN)), raw, max_leaves=8))
def test_whatever_is_said_can_be_read_judged_and_drawn(document: Any) -> None:
    seen = read_plan("read/x", {"Plan": document})
    run = [each for each in seen.nodes() if each.loops]
    assert all(fault.node in run and fault.words for fault in flaws(seen))
    lines = drawn(seen, width=71)
    assert len(lines) == 2 * len(list(seen.nodes())) + 1
    assert all(len(line) <= 71 for line in lines)
