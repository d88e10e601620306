"""Who keeps whom waiting, as trees: whoever waits for nobody is a root. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from diagnostics.sessions import Session

__all__ = ["PREPARED", "Tree", "age", "drawn", "trees"]

PREPARED = 0
"""The pid by which PostgreSQL names a prepared transaction: it has no session."""

_SHOWN = 12  # waiters of one session that are drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A session that keeps others waiting, and those; `session` is None for a prepared transaction, or one that is not seen.

    Each waiter is in one place, as near to a root as it gets; `also` are the others that it waits for. `behind` counts whom it
    keeps waiting, directly or through others. `cycle`: it is no root, but nobody else is one for those who wait here.
    """

    pid: int
    session: Session | None
    waiters: tuple["Tree", ...] = ()
    also: tuple[int, ...] = ()
    behind: int = 0
    cycle: bool = False


def trees(sessions: Sequence[Session]) -> tuple[Tree, ...]:
    """Return who keeps whom waiting, the one with the most behind it first."""
    by_pid = {session.pid: session for session in sessions}
    waiters: dict[int, set[int]] = defaultdict(set)
    for session in sessions:
        for pid in session.blocked_by:
            waiters[pid].add(session.pid)
    waits = {session.pid for session in sessions if session.blocked_by}
    placed: dict[int, int] = {}
    roots = sorted(pid for pid in waiters if pid not in waits)
    _place(roots, waiters, placed)
    cyclic = []
    for pid in sorted(waits, key=lambda pid: _age_key(by_pid[pid])):
        if pid not in placed and pid not in roots and waiters[pid]:  # a deadlock, for as long as it lasts
            cyclic.append(pid)
            _place([pid], waiters, placed, known={*roots, *cyclic})
    found = [_tree(pid, by_pid, placed, waiters, cycle=pid in cyclic) for pid in [*roots, *cyclic]]
    return tuple(sorted(found, key=lambda tree: (-tree.behind, tree.pid)))


def drawn(tree: Tree, now: datetime, *, width: int = 80) -> list[str]:
    """Return a tree as lines of at most `width` columns: who, in which state and since when, and below it the query."""
    return _drawn(tree, now, head="", rest="", width=width)


def _age_key(session: Session) -> tuple[bool, float, int]:
    since = session.transaction_since
    return since is None, since.timestamp() if since else 0.0, session.pid


def _place(
    roots: Iterable[int], waiters: Mapping[int, set[int]], placed: dict[int, int], known: Iterable[int] = ()
) -> None:
    """Hang each waiter under the first that it is reached from, level by level: no session is drawn twice."""
    seen, level = {*roots, *known, *placed}, list(roots)
    while level:
        following = []
        for pid in level:
            for waiter in sorted(waiters.get(pid, ())):
                if waiter not in seen:
                    seen.add(waiter)
                    placed[waiter] = pid
                    following.append(waiter)
        level = following


def _tree(
    pid: int,
    by_pid: Mapping[int, Session],
    placed: Mapping[int, int],
    waiters: Mapping[int, set[int]],
    *,
    cycle: bool = False,
) -> Tree:
    session = by_pid.get(pid)
    below = [each for each, parent in placed.items() if parent == pid]
    others = {other for other in (session.blocked_by if session else ()) if other != placed.get(pid)}
    return Tree(
        pid=pid,
        session=session,
        waiters=tuple(_tree(each, by_pid, placed, waiters) for each in below),
        also=tuple(sorted(others)),
        behind=len(_reached(pid, waiters)),
        cycle=cycle,
    )


def _reached(pid: int, waiters: Mapping[int, set[int]]) -> set[int]:
    found: set[int] = set()
    level = [pid]
    while level:
        level = [each for waiting in level for each in waiters.get(waiting, ()) if each not in found]
        found.update(level)
    return found - {pid}


def _drawn(tree: Tree, now: datetime, *, head: str, rest: str, width: int) -> list[str]:
    session, shown = tree.session, tree.waiters[:_SHOWN]
    more = len(tree.waiters) - len(shown)
    stem = "│  " if tree.waiters else "   "
    lines = [_cut(head + _who(tree, now), width)]
    if session is not None and session.query:
        lines.append(_cut(f"{rest}{stem}{session.query}", width))
    for number, waiter in enumerate(shown, 1):
        last = number == len(shown) and not more
        lines += _drawn(
            waiter,
            now,
            head=rest + ("└─ " if last else "├─ "),
            rest=rest + ("   " if last else "│  "),
            width=width,
        )
    return lines + ([_cut(f"{rest}└─ and {more} more", width)] if more else [])


def _who(tree: Tree, now: datetime) -> str:
    session = tree.session
    if session is None:
        return "a prepared transaction" if tree.pid == PREPARED else f"{tree.pid}: it is not seen from here"
    who = f"{tree.pid} {session.user}" + (f" ({session.application})" if session.application else "")
    # What has begun a transaction is as old as that; its statement may be younger.
    since = session.transaction_since or session.since
    how_long = f" for {age(now - since)}" if since else ""
    what = "waits" if session.blocked_by else session.state
    others = f", {'' if tree.cycle else 'also '}for {', '.join(map(str, tree.also))}" if tree.also else ""
    return f"{who}: {what}{how_long}{others}"


def age(duration: timedelta) -> str:
    """Return a duration in its largest unit: 45 s, 12 min, 3 h."""
    seconds = max(0, int(duration.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"
