"""What a worker was handed, sorted by what has become of it so far. Pure."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from runbooks.engine.journal import JournalEntry
from runbooks.engine.model import SETTLED, Phase
from sandbox.ports import Parcel

__all__ = ["DEADLY", "Sorted", "sort_out"]

DEADLY = 3
"""So often may an action be begun without an ending of any kind: then it is what kills its workers."""

_HANDED_OUT = 20  # times, without even being begun: the queue's own count also grows when work is given back


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """What was handed out. `strangers` are none of the plan's actions; `ended` ones are done or skipped already.

    `deadly` ones have killed their workers, each with how. `suspect` ones were begun by a worker that is gone, those to be done
    `alone` more than once; `fresh` ones can be done together.
    """

    strangers: tuple[Parcel, ...]
    ended: tuple[Parcel, ...]
    deadly: tuple[tuple[Parcel, str], ...]
    alone: tuple[Parcel, ...]
    suspect: tuple[Parcel, ...]
    fresh: tuple[Parcel, ...]


def sort_out(parcels: Sequence[Parcel], actions: Container[str], past: Sequence[JournalEntry]) -> Sorted:
    """Sort what was handed out; `past` holds the records of these actions, oldest first."""
    strangers: list[Parcel] = []
    ended: list[Parcel] = []
    deadly: list[tuple[Parcel, str]] = []
    alone: list[Parcel] = []
    suspect: list[Parcel] = []
    fresh: list[Parcel] = []
    settled = {entry.action for entry in past if entry.phase in SETTLED}
    for parcel in parcels:
        begun = _begun(past, parcel.action)
        if parcel.action is None or parcel.action not in actions:
            strangers.append(parcel)
        elif parcel.action in settled:
            ended.append(parcel)
        elif begun >= DEADLY:
            deadly.append((parcel, f"begun {begun} times, and whoever began it came to no end"))
        elif parcel.delivered > _HANDED_OUT:
            deadly.append((parcel, f"handed out {parcel.delivered} times, and nobody came to an end"))
        else:
            (alone if begun > 1 else suspect if begun else fresh).append(parcel)
    return Sorted(
        strangers=tuple(strangers),
        ended=tuple(ended),
        deadly=tuple(deadly),
        alone=tuple(alone),
        suspect=tuple(suspect),
        fresh=tuple(fresh),
    )


def _begun(past: Sequence[JournalEntry], action: str | None) -> int:
    """How often it was begun since it last ended in any way."""
    count = 0
    for entry in past:
        if entry.action == action:
            count = count + 1 if entry.phase is Phase.STARTED else 0
    return count
