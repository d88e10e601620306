"""The operators' handbook, docs/runbooks/: the page of each runbook and an index, made from the code; and whether the files are so."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from diagnostics.alarms import PUBLISHERS
from runbooks.engine.environment import FOLDER as ENVIRONMENTS
from runbooks.engine.environment import names, settings_of
from runbooks.engine.guards import MAX_SHARE, MAX_TARGETS
from runbooks.engine.model import Runbook
from runbooks.engine.plan import LIFETIME
from runbooks.reports import pages
from runbooks.reports.pages import MARK, Usage
from sandbox.errors import ArrakisError
from sandbox.metrics import ALARMS, NAMESPACE, Watch
from sandbox.text import lasting

__all__ = ["FOLDER", "differing", "made", "write"]

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
"""Where the handbook is, in the repository."""

_ROOT = FOLDER.parents[1]
_INDEX = "README.md"
_JOB = re.compile(
    r'task\s*=\s*"(?P<task>[^"]+)".*?schedule\s*=\s*"rate\((?P<rate>[^)]+)\)".*?description\s*=\s*"(?P<what>[^"]+)"',
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A scheduled job as it is deployed: the task, when it is started, and what it does."""

    task: str
    schedule: str
    description: str


def made(runbooks: Iterable[Runbook], usage_of: Callable[[str], Usage]) -> dict[str, str]:
    """Return the handbook as it should be: each file's text by its name. `usage_of` returns the options of a task by its name.

    Raises ArrakisError outside of the repository: the index tells of what else is there.
    """
    known = list(runbooks)
    told = {f"{each.name}.md": pages.render(each, usage_of(each.name)) for each in known}
    return {_INDEX: _index(known), **told}


def differing(handbook: Mapping[str, str], folder: Path = FOLDER) -> list[str]:
    """Return what of a folder is not as the handbook should be: what is missing, stale, left over or strange; nothing if all is well."""
    there = _there(folder)
    missing = [f"{name} is missing" for name in handbook if name not in there]
    stale = [f"{name} is stale" for name, text in there.items() if handbook.get(name, text) != text]
    others = {name: text for name, text in there.items() if name not in handbook}
    left = [f"{name} is left over" for name, text in others.items() if text.startswith(MARK)]
    return [*missing, *stale, *left, *_strange(others)]


def write(handbook: Mapping[str, str], folder: Path = FOLDER) -> list[str]:
    """Make a folder so, and return what was written or taken away. What was not generated is never taken away, but told."""
    done = []
    for name, text in handbook.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            done.append(f"wrote {name}")
    others = {name: text for name, text in _there(folder).items() if name not in handbook}
    for name, text in others.items():
        if text.startswith(MARK):
            (folder / name).unlink()
            done.append(f"took away {name}")
    return [*done, *_strange(others)]


def _there(folder: Path) -> dict[str, str]:
    """Return the text of each file by its name."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {str(file.relative_to(folder)): file.read_text(encoding="utf-8") for file in files}


def _strange(others: Mapping[str, str]) -> list[str]:
    return [
        f"{name} is not generated: remove it yourself"
        for name, text in others.items()
        if not text.startswith(MARK)
    ]


def _index(runbooks: list[Runbook]) -> str:
    """Return the index: what to type for what is seen, emergencies first; metrics, schedules, contacts."""
    told = pages.template("index.md.j2").render(
        urgent=[each for each in runbooks if each.urgent],
        calm=[each for each in runbooks if not each.urgent],
        periodic=[each for each in runbooks if each.page.schedule],
        lifetime=lasting(LIFETIME),
        most=MAX_TARGETS,
        share=f"{MAX_SHARE:.0%}",
        namespace=NAMESPACE,
        metrics=list(_metrics(runbooks)),
        jobs=list(_jobs()),
        contacts=list(_contacts()),
    )
    return f"{MARK}\n{told}"


def _metrics(runbooks: Iterable[Runbook]) -> Iterator[tuple[str, str, Watch | None, Runbook | None]]:
    """Yield each metric with who publishes it, the alarm that watches it, and the runbook that this one calls for."""
    watched = {each.metric: each for each in ALARMS.values()}
    called = {each.alarm: each for each in runbooks if each.alarm}
    for metric in dict.fromkeys((*watched, *PUBLISHERS)):  # those with an alarm first
        watch = watched.get(metric)
        yield metric, PUBLISHERS[metric], watch, called[watch.alarm] if watch else None


def _jobs() -> Iterator[Job]:
    """Yield the scheduled jobs, as the Terraform that deploys them has them. Raises ArrakisError where that is not."""
    terraform = _ROOT / "deploy" / "terraform" / "jobs.tf"
    if not terraform.exists():
        raise ArrakisError(
            f"there is no {terraform}", hint="make the handbook in the repository, not in an image"
        )
    for job in _JOB.finditer(terraform.read_text(encoding="utf-8")):
        schedule = f"every {job['rate'].removeprefix('1 ')}"
        yield Job(task=job["task"], schedule=schedule, description=job["what"])


def _contacts() -> Iterator[tuple[str, str]]:
    """Yield each environment that has a file, and whom it names to be called; empty where it names nobody."""
    for name in names(ENVIRONMENTS):
        yield name, str(settings_of(name, ENVIRONMENTS).get("stack", {}).get("escalation", ""))
