"""The statements, one a file, so that each can be read, explained and run by hand."""

from functools import cache
from importlib import resources

__all__ = ["load"]


@cache
def load(name: str) -> str:
    """Return the text of a statement, e.g. ``load("read/schemas/census")``.

    Raises FileNotFoundError for a name that is no file: a mistake in the code, not of the operator.
    """
    return resources.files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
