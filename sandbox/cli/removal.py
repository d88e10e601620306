"""The command that takes a sandbox away, once somebody has seen what goes with it."""

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from sandbox import registry, removal
from sandbox.cli import show
from sandbox.cli.ending import Refused, plain
from sandbox.cli.options import NAME, Answer, answering
from sandbox.cli.preview import Preview, preview
from sandbox.cli.target import Target, actor
from sandbox.errors import ArrakisError
from sandbox.ports import KeyReader, SqlReader
from sandbox.removal import Destroyed
from sandbox.text import clean

__all__ = ["destroy"]


@click.command(short_help="Take a sandbox away.")
@click.argument("name", type=NAME)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would go. Nothing is changed.")
@answering
def destroy(name: str, yes: bool, dry_run: bool, answer: Answer) -> int:
    """Take the sandbox NAME away for good: its routes, keys, schemas and mappings. Its row is kept.

    On a terminal it says what would go, and asks. Safe to repeat: that finishes what was left.
    """
    target = Target.of(os.environ)
    if dry_run:
        return _look(target.database(), target.readable_keys(), name, answer)
    who = actor(os.environ)
    database, keys = target.database(), target.keys()
    if not yes and not (sys.stdin and sys.stdin.isatty()):
        raise Refused(
            f"{name} is not destroyed: there is no terminal to ask on",
            hint="say --yes; --dry-run says what would go",
        )
    if not yes:
        seen = preview(database, keys, name)
        print(show.preview_text(seen, who=who, now=datetime.now(UTC)), file=sys.stderr)
        if seen.dependents:
            raise Refused(f"{name} is not destroyed: production would lose {', '.join(seen.dependents)}")
        if not seen.nothing:
            _confirm(seen)
    now = registry.time_of(database)
    return _say(removal.destroy(database, keys, name, actor=who, now=now), now, answer)


def _look(database: SqlReader, keys: KeyReader, name: str, answer: Answer) -> int:
    seen = preview(database, keys, name)
    try:
        who = actor(os.environ)
    except ArrakisError:  # only looking: nobody has to be anybody
        who = None
    text = show.preview_text(seen, who=who, now=datetime.now(UTC))
    answer.give(text, show.preview_document(seen), brief=text)
    if seen.dependents:
        return 4
    return 3 if seen.keys is None else 0


def _confirm(seen: Preview) -> None:
    print(f"Destroy {clean(seen.sandbox.name)}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused(f"{seen.sandbox.name} is not destroyed: nobody confirmed it, and nothing was changed")


def _say(gone: Destroyed, now: datetime, answer: Answer) -> int:
    document: Mapping[str, Any] = {
        "success": gone.unsettled is None,
        "sandbox": show.summary(gone.sandbox),
        "schemas": list(gone.schemas),
        "guildIds": list(gone.guilds),
        "keys": gone.keys if gone.unsettled is None else None,
        **({"error": plain(gone.unsettled)} if gone.unsettled else {}),
    }
    answer.give(show.destroyed(gone, now=now), document)
    answer.warn(gone.unsettled, "its keys and cached routes are left to the clean-up job")
    return 5 if gone.unsettled else 0
