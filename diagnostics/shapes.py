"""Lines of one shape differ in ids and numbers alone, digit for digit: what was found of one holds for all. Pure.

A log has many lines of few shapes. To see that one has a known shape takes a tenth of the time of reading it.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Generic, TypeVar

__all__ = ["PORTS", "Shapes"]

T = TypeVar("T")

PORTS = r"(?:5432|6432|6379|4222)(?![\w-])"
"""The servers' own ports: numbers that tell one error from another."""

# Shapes that are known, in all and of one length: a line of none is held against these.
_MOST, _ALIKE = 500, 8
_LONGEST = 2000  # characters of a line that has one
_ID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# Numbers that are words of a message, or values in JSON: not its level, a port or a code, which tell one error from another.
_NUMBER = rf'(?:(?<=\w )|(?<=\w":)(?<!"level":)(?<!"port":)(?<!"code":))(?!{PORTS})\d+(?=[ ,}}"\]]|\Z)'
_CHANGING = re.compile(rf"(?P<id>{_ID})|{_NUMBER}")

Shape = tuple[re.Pattern[str], T, Sequence[int]]
"""What matches its lines, what was found of one, and which of the changing parts are sandboxes' ids."""


class Shapes(Generic[T]):
    """What was found of lines, by their shape. It holds few of them, however many lines there are."""

    def __init__(self) -> None:
        """Know none."""
        self._known: dict[int, list[Shape[T]]] = defaultdict(list)  # by the lines' length
        self._count = 0

    def find(self, text: str) -> tuple[T, Sequence[str]] | None:
        """Return what was found of a line of this shape, and the ids in this one; None where none is known."""
        for pattern, found, places in self._known.get(len(text), ()):
            if match := pattern.fullmatch(text):
                return found, [match[place] for place in places]
        return None

    def learn(self, text: str, found: T, ids: Sequence[str], *, kept: str = "") -> None:
        """Remember what was found of a line that names these sandboxes, unless enough are known.

        `kept` is what was found of it in its own words: where a part is in there that might differ, nothing is remembered.
        """
        if self._count >= _MOST or len(text) > _LONGEST or len(self._known[len(text)]) >= _ALIKE:
            return
        parts: list[str] = []
        groups: dict[str, int] = {}
        end = 0
        for number, part in enumerate(_CHANGING.finditer(text), 1):
            parts += [re.escape(text[end : part.start()]), _like(part, groups.get(part[0]))]
            groups.setdefault(part[0], number)
            end = part.end()
        if not groups.keys() >= set(ids) or any(part in kept for part in groups):
            return  # an id that is spelt otherwise, say: such a line is read each time
        pattern = re.compile("".join([*parts, re.escape(text[end:])]))
        self._known[len(text)].append((pattern, found, [groups[id] for id in ids]))
        self._count += 1


def _like(part: re.Match[str], before: int | None) -> str:
    """Return what matches parts that may stand in the place of this one; where it stands twice, the same twice."""
    if before:
        return f"(\\{before})"
    if part["id"]:
        return f"({_ID})"
    zero = (
        "=" if part[0].startswith("0") else "!"
    )  # to JSON, none at all is nothing, and one before others no number
    return rf"((?{zero}0)(?!{PORTS})\d{{{len(part[0])}}})"
