"""What an incident is given to work with, and what it is."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from lab.scene import Scene

__all__ = ["Incident", "Stage", "side_by_side"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A running lab: `env` names its servers, `play` makes a scene true and returns when it is."""

    env: Mapping[str, str]
    now: datetime
    play: Callable[[Scene], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A world in which a runbook has something to find; `lay_out` expects a fresh lab, or one with its `world`.

    `world` builds what several incidents happen in: once one of them is relieved, another may follow in the same lab.
    `relieve` removes the cause for real, whatever a runbook has mended of it already; None where there is no such cause.
    """

    name: str
    summary: str
    lay_out: Callable[[Stage], None]
    relieve: Callable[[Stage], None] | None = None
    world: Callable[[Stage], None] | None = None


def side_by_side(*parts: Callable[[], None]) -> None:
    """Do the parts of a lay-out at once; raises what the first of them that failed raised."""
    with ThreadPoolExecutor(len(parts)) as pool:
        for part in [pool.submit(part) for part in parts]:
            part.result()
