"""Who keeps whom waiting, as trees: pure cases."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.sessions import Session
from diagnostics.waiting import Tree, age, drawn, trees
from tests.unit.slowness import NOW, session

Shape = tuple[int, tuple["Shape", ...]]


def shape(tree: Tree) -> Shape:
    return tree.pid, tuple(map(shape, tree.waiters))


@pytest.mark.parametrize(
    ("sessions", "shapes"),
    [
        ([], []),
        ([session(1), session(2)], []),
        ([session(1), session(2, 1)], [(1, ((2, ()),))]),
        ([session(1), session(2, 1), session(3, 2)], [(1, ((2, ((3, ()),)),))]),
        # Who stands behind another in line waits for the one that holds, too: it hangs under that one.
        ([session(1), session(2, 1), session(3, 1, 2)], [(1, ((2, ()), (3, ())))]),
        (
            [session(1), session(2, 1), session(5), session(6, 5), session(7, 6)],
            [(5, ((6, ((7, ()),)),)), (1, ((2, ()),))],
        ),
        ([session(2, 0)], [(0, ((2, ()),))]),
        ([session(2, 99)], [(99, ((2, ()),))]),
        ([session(1, 2), session(2, 1), session(3, 2)], [(1, ((2, ((3, ()),)),))]),
    ],
)
def test_a_root_waits_for_nobody_and_each_waiter_hangs_as_near_to_one_as_it_gets(
    sessions: list[Session], shapes: list[Shape]
) -> None:
    assert [shape(tree) for tree in trees(sessions)] == shapes


def test_what_a_root_keeps_waiting_is_counted_once_and_other_roots_are_named() -> None:
    first, second = trees([session(1), session(2), session(3, 1, 2), session(4, 3)])
    assert (first.pid, first.behind, second.pid, second.behind) == (1, 2, 2, 2)
    [waiter] = first.waiters
    assert (waiter.pid, waiter.also) == (3, (2,))
    assert second.waiters == ()  # it is drawn in one place


def test_a_cycle_begins_with_its_oldest_transaction_and_says_so() -> None:
    old = session(7, 3, transaction_since=NOW - timedelta(hours=1))
    [tree] = trees([session(3, 7), old])
    assert (tree.pid, tree.cycle, tree.behind) == (7, True, 1)
    assert drawn(tree, NOW)[0] == "7 ada (psql): waits for 60 min, for 3"


def test_it_is_drawn_with_ages_and_queries() -> None:
    idle = session(1, idle=timedelta(hours=3), query="UPDATE t SET a = 'secret'")
    [tree] = trees([idle, session(2, 1), session(3, 1), session(4, 3)])
    assert drawn(tree, NOW) == [
        "1 ada (psql): idle in transaction for 3 h",
        "│  UPDATE t SET a = '…'",
        "├─ 2 ada (psql): waits for 5 min",
        "│     SELECT 2",
        "└─ 3 ada (psql): waits for 5 min",
        "   │  SELECT 3",
        "   └─ 4 ada (psql): waits for 5 min",
        "         SELECT 4",
    ]


def test_what_has_no_session_is_named_and_a_long_line_is_cut_short() -> None:
    [prepared] = trees([session(pid, 0) for pid in range(2, 30)])
    lines = drawn(prepared, NOW, width=24)
    assert lines[0] == "a prepared transaction"
    assert lines[-1] == "└─ and 16 more"
    assert lines[1] == "├─ 2 ada (psql): waits …"
    [unseen] = trees([session(2, 99)])
    assert drawn(unseen, NOW)[0] == "99: it is not seen from here"


@pytest.mark.parametrize(("seconds", "told"), [(-1, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h")])
def test_an_age_is_told_in_its_largest_unit(seconds: int, told: str) -> None:
    assert age(timedelta(seconds=seconds)) == told


@given(st.lists(st.sets(st.integers(0, 14), max_size=4), min_size=1, max_size=12))
def test_every_session_that_waits_is_in_one_place_whatever_waits_for_what(edges: list[set[int]]) -> None:
    sessions = [session(pid, *sorted(whom - {pid})) for pid, whom in enumerate(edges, 1)]
    pids: list[int] = []

    def walk(tree: Tree) -> None:
        pids.append(tree.pid)
        for waiter in tree.waiters:
            walk(waiter)

    found = trees(sessions)
    for tree in found:
        walk(tree)
        assert all(len(line) <= 60 for line in drawn(tree, NOW, width=60))
    assert len(pids) == len(set(pids))
    waiting = {each.pid for each in sessions if each.blocked_by}
    assert waiting <= set(pids)
    roots = {pid for each in sessions for pid in each.blocked_by} - waiting
    assert roots <= {tree.pid for tree in found}
    assert all(tree.cycle == (tree.pid in waiting) for tree in found)
