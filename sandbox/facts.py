"""A fact is known or unknown. A failed read is never zero."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sandbox.deadline import ended
from sandbox.errors import ArrakisError, Denied, Missing
from sandbox.secrets import concealed
from sandbox.text import brief

__all__ = ["Fact", "Known", "Unknown", "gather", "insist"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """What a source said."""

    value: T


@dataclass(frozen=True, slots=True)
class Unknown:
    """A source did not say: why not, and what to do about it."""

    reason: str
    hint: str = ""
    error: BaseException | None = None


Fact = Known[T] | Unknown


def insist(fact: Fact[Any]) -> None:
    """Raise what a server answered instead of a fact: no such table, no right. Somebody has to mend the set-up first."""
    if isinstance(fact, Unknown) and isinstance(fact.error, Denied | Missing):
        raise fact.error


def gather(probes: Mapping[str, Callable[[], Any]], *, deadline: float) -> dict[str, Any]:
    """Run the probes side by side and return a fact for each, within `deadline` seconds.

    A probe that fails, or has not answered by then, is Unknown. Its thread is left behind; being a daemon it does not
    hold up the exit.
    """
    facts: dict[str, Any] = {}

    def run(name: str, probe: Callable[[], Any]) -> None:
        try:
            facts[name] = Known(probe())
        except ArrakisError as error:
            facts[name] = Unknown(str(error), error.hint, error)
        except Exception as error:  # a probe's own fault must not hide what the others found
            why = concealed(f"{type(error).__name__}: {error}")
            facts[name] = Unknown(f"the {name} probe failed: {why}", "", error)

    threads = [threading.Thread(target=run, args=item, daemon=True, name=item[0]) for item in probes.items()]
    for thread in threads:
        thread.start()
    end = time.monotonic() + deadline
    for thread in threads:
        ended(thread, end - time.monotonic())
    done = dict(facts)
    late = Unknown(f"no answer within {brief(deadline)} s", "is the server up? --timeout S waits longer")
    return {name: done.get(name, late) for name in probes}
