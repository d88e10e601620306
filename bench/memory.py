"""How much memory something takes at the most."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

__all__ = ["peak"]


def peak(what: Callable[..., object], *given: object) -> float:
    """Return the most memory, in MiB, that a process of its own has taken when it has done this."""
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        return alone.apply(_peak, (what, given))


def _peak(what: Callable[..., object], given: tuple[object, ...]) -> float:
    what(*given)
    # Not what getrusage says, which holds what the process that started this one had.
    status = Path("/proc/self/status").read_text().splitlines()
    [most] = [line for line in status if line.startswith("VmHWM")]
    return int(most.split()[1]) / 1024
