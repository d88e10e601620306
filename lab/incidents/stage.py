"""What an incident is given to work with, and what it is."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import psycopg

from lab.scene import Scene

__all__ = ["Incident", "Stage", "incidents", "side_by_side"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A running lab: `env` names its servers, `play` makes a scene true and returns when it is."""

    env: Mapping[str, str]
    now: datetime
    play: Callable[[Scene], None]

    def database(self) -> psycopg.Connection[Any]:
        """Connect to the database; each statement is a transaction."""
        return psycopg.connect(self.env["DATABASE_URL"], autocommit=True, connect_timeout=5)


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


class Cause(Protocol):
    """What an incident is made from: its name and what it is about; how it is made is its module's."""

    @property
    def name(self) -> str:
        """What the incident is called."""
        ...

    @property
    def summary(self) -> str:
        """What it is about."""
        ...


C = TypeVar("C", bound=Cause)


def incidents(
    causes: Sequence[C],
    *,
    lay_out: Callable[[C, Stage], None],
    relieve: Callable[[C, Stage], None],
    world: Callable[[Stage], None] | None = None,
) -> tuple[Incident, ...]:
    """Return an incident for each cause, all laid out, relieved and set in the same way."""
    return tuple(
        Incident(
            name=cause.name,
            summary=cause.summary,
            lay_out=partial(lay_out, cause),
            relieve=partial(relieve, cause),
            world=world,
        )
        for cause in causes
    )


def side_by_side(*parts: Callable[[], None]) -> None:
    """Do the parts of a lay-out at once; raises what the first of them that failed raised."""
    with ThreadPoolExecutor(len(parts)) as pool:
        for part in [pool.submit(part) for part in parts]:
            part.result()
