"""A result as files: the JSON document, and a Markdown page made from it."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sandbox.text import clean

__all__ = ["write"]


def write(document: dict[str, Any], folder: Path) -> Path:
    """Write `{name}.json` and `{name}.md` into a folder; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    name = (document["run"] or document["plan"] or {"id": f"{document['runbook']}-{document['outcome']}"})[
        "id"
    ]
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    templates = Environment(
        loader=PackageLoader("runbooks.reports", "."),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
    )
    templates.filters["cell"] = _cell
    page = folder / f"{name}.md"
    page.write_text(templates.get_template("report.md.j2").render(document=document), encoding="utf-8")
    return page


def _cell(value: object) -> str:
    """Text that cannot end a table's cell, nor become a link or markup."""
    return "".join(f"\\{char}" if char in "\\|`*_[]()#~" else char for char in clean(value))
