"""A document as files: JSON for machines, Markdown for a ticket, HTML for a post-mortem."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runbooks.reports import html, markdown, view
from sandbox.private import make_folder

__all__ = ["write"]


def write(document: Mapping[str, Any], folder: Path) -> Path:
    """Write a document of a diagnosis, a run or an audit as `{name}.json`, `.md` and `.html`; return the last one's path.

    Each file is there whole or not at all, and its owner alone may read it; so it is with the folder, if it has to be made.
    Raises OSError.
    """
    make_folder(folder)
    path = folder / Path(view.name(document)).name
    _put(path.with_name(f"{path.name}.json"), json.dumps(document, indent=1))
    _put(path.with_name(f"{path.name}.md"), markdown.render(document))
    page = path.with_name(f"{path.name}.html")
    _put(page, html.render(document))
    return page


def _put(path: Path, text: str) -> None:
    """Take the place of an earlier file in one step, by way of a file that nobody else can have put there."""
    handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(made).replace(path)
    except BaseException:
        Path(made).unlink()
        raise
