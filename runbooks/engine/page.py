"""What a runbook says of itself: its page is made of it, and the rights that operators are given. Frozen values.

They stand beside the code that they describe, in the runbook's own module.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import dedent

__all__ = ["SECTIONS", "Look", "Page", "Rights", "Threshold"]

SECTIONS = ("Trigger", "Symptoms", "Looks at", "May change it", "How", "Archive", "Undo")
"""What a runbook's docstring tells, each under its own word at the beginning of a line. `How` and `Archive` only some have."""

_INDENT = 11  # columns before a section's lines
_SECTION = re.compile(rf"^({'|'.join(SECTIONS)}) +(?=\S)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A figure by which a runbook judges: its name in an operator's words, the value with its unit, and what it decides."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Something that a runbook looks at, and the command by which a person sees the same."""

    what: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What a login needs, in each system's own words.

    `postgres`: grants such as `SELECT ON public.sandboxes`; `redis`: commands such as `+scan`, and key patterns such as
    `~sandbox:*`; `nats`: subjects to publish to; `aws`: IAM actions such as `logs:FilterLogEvents`. Rights are joined by `|`.
    """

    postgres: frozenset[str] = frozenset()
    redis: frozenset[str] = frozenset()
    nats: frozenset[str] = frozenset()
    aws: frozenset[str] = frozenset()

    def __or__(self, other: "Rights") -> "Rights":
        """Return what is needed for both."""
        return Rights(
            postgres=self.postgres | other.postgres,
            redis=self.redis | other.redis,
            nats=self.nats | other.nats,
            aws=self.aws | other.aws,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`text` is the module's own docstring; `reads` the rights that a diagnosis needs, `writes` what applying needs on top.

    `examples` are commands, without what they are called through, each with what it is for: the first one is what to type at
    first. `schedule` is how often a person runs it, where that is not by need.
    """

    text: str = ""
    schedule: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    looks: tuple[Look, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    reads: Rights = field(default_factory=Rights)
    writes: Rights = field(default_factory=Rights)

    @property
    def sections(self) -> Mapping[str, str]:
        """The docstring's sections by their word, in its order, as Markdown: the lines as they stand, not indented."""
        _, *parts = _SECTION.split(self.text)
        told = zip(parts[::2], parts[1::2], strict=True)
        return {name: dedent(f"{' ' * _INDENT}{text}").strip() for name, text in told}
