"""Mark each line that this process comes by in a file that all processes share; `tests.covering` lets every Python run this at its start.

Nothing is written down at the end, so that what a killed process did counts too. CPython tells of a line only once, which costs next
to nothing (https://docs.python.org/3/library/sys.monitoring.html, from 3.12 on).
"""

import mmap
import sys
from collections.abc import Mapping
from types import CodeType

assert sys.version_info >= (3, 12)


def count(marks: str, places: Mapping[str, int]) -> None:
    """Mark in a file of a byte for each line: those of the source of a path begin at its place."""
    with open(marks, "r+b") as file:  # noqa: PTH123 - pathlib would be imported into each program
        marked = mmap.mmap(file.fileno(), 0)  # shared, across forks too
    monitoring = sys.monitoring
    tool, events = monitoring.COVERAGE_ID, monitoring.events

    def begun(code: CodeType, _: int) -> object:
        if code.co_filename in places:
            monitoring.set_local_events(tool, code, events.LINE)
        return monitoring.DISABLE

    def came_by(code: CodeType, line: int) -> object:
        marked[places[code.co_filename] + line] = 1
        return monitoring.DISABLE

    monitoring.use_tool_id(tool, __name__)
    monitoring.register_callback(tool, events.PY_START, begun)
    monitoring.register_callback(tool, events.LINE, came_by)
    monitoring.set_events(tool, events.PY_START)
