"""How the tasks are called: examples for --help and the pages, and the words that an option takes, for completion."""

from collections.abc import Callable, Mapping, Sequence

__all__ = ["examples", "values"]

Example = tuple[str, str]
"""What is typed behind `invoke`, and what for."""

_EXAMPLES: Mapping[str, Sequence[Example]] = {
    "apply": (
        ("apply --plan rb-sb-003-1a2b3c4d", "apply the plan that a diagnosis saved, exactly, once"),
        (
            "apply --plan rb-sb-003-1a2b3c4d --max-targets 40",
            "when it is larger than the blast radius allows",
        ),
    ),
    "audit": (
        ("audit --env production", "look at everything; what changed since the last audit is told first"),
        ("audit --only rb-sb-003,emergency", "only some of it"),
        (
            "audit --fail-on critical --json",
            "for cron and CI: exit 2 only for what is critical, 3 where it cannot tell",
        ),
    ),
    "doctor": (("doctor --env production", "before the pager goes off: can this machine look, and change?"),),
    "explain": (("explain rb-sb-003", "what it looks at, what it may change, and how to undo it"),),
    "history": (("history --env production", "which runs were made from this host"),),
    "journal-verify": (
        ("journal-verify --env production", "was this host's journal changed, as far as its copies show?"),
    ),
    "resume": (("resume --run rb-sb-003-1a2b3c4d-5e6f", "take up a run that was interrupted or has failed"),),
    "show": (("show --run rb-sb-003-1a2b3c4d-5e6f", "what a run did, record by record"),),
    "triage": (
        ("triage --incident Q1ABC23DEF", "from the page to the diagnosis; a note goes on the timeline"),
        ("triage --alarm production-sandbox-count-high", "where there is no incident"),
    ),
    "undo": (("undo --run rb-sb-003-1a2b3c4d-5e6f", "give back what a run took away"),),
    "lab": (
        ("lab rb-sb-003", "practise on servers of your own, with nothing at risk"),
        ("lab --incident lock-held rb-sb-002", "with another incident"),
    ),
}


def examples(task: str) -> Sequence[Example]:
    """Return how a task is called, with what for; a runbook's are its page's own."""
    from runbooks.catalogue import RUNBOOKS

    runbook = RUNBOOKS.get(task)
    return runbook.page.examples if runbook else _EXAMPLES.get(task, ())


def values(word: str) -> Sequence[str]:
    """Return the words that may follow this option or task; none where they are no closed set."""
    found = _VALUES.get(word)
    return found() if found else ()


def _environments() -> Sequence[str]:
    from runbooks.engine.environment import FOLDER, names

    return names(FOLDER)


def _runbooks() -> Sequence[str]:
    from runbooks.catalogue import RUNBOOKS

    return list(RUNBOOKS)


_VALUES: Mapping[str, Callable[[], Sequence[str]]] = {
    "--env": _environments,
    "--fail-on": lambda: ("warning", "critical"),
    "--via": lambda: ("library", "ecs"),
    "explain": _runbooks,
}
