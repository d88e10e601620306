"""What is wrong on purpose: servers that are down, and actors at work. The supervisor keeps it true."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FILE", "Scene"]

FILE = "scene.json"
"""In the lab's home: the scene that is wanted. The one that is true stands in the supervisor's state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """`down` are servers that do not answer; `actors` are subcommands of lab.actors with their arguments.

    `volume` is a disk of PostgreSQL's own, in MiB: it is given once, and stays whatever the next scene says.
    """

    down: tuple[str, ...] = ()
    actors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    volume: int | None = None

    @classmethod
    def of(cls, value: Any) -> "Scene":
        """The scene that JSON holds; nothing is wrong where there is none."""
        found = value or {}
        actors = {name: tuple(words) for name, words in found.get("actors", {}).items()}
        return cls(down=tuple(found.get("down", ())), actors=actors, volume=found.get("volume"))

    def as_json(self) -> dict[str, Any]:
        """What `of` reads."""
        return {
            "down": list(self.down),
            "actors": {name: list(words) for name, words in self.actors.items()},
            "volume": self.volume,
        }
