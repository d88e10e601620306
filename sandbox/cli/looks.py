"""The commands that only look: list, status, connect."""

import json
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import click

from sandbox import health
from sandbox.cli import report, shell, show
from sandbox.cli.listing import Listed, listing
from sandbox.cli.options import NAME, SECONDS, Answer, answering, on_terminal
from sandbox.cli.target import Target, actor
from sandbox.cli.watch import Blind, until_seen
from sandbox.health import Health, Level
from sandbox.model import Status
from sandbox.text import clean

__all__ = ["connect", "list_", "status"]

_EXITS = {Level.HEALTHY: 0, Level.DEGRADED: 2, Level.UNHEALTHY: 2, Level.UNKNOWN: 3}


@click.command("list", short_help="List sandboxes: yours, or everybody's.")
@click.option("-a", "--all", "everybody", is_flag=True, help="Everybody's, not only yours.")
@click.option(
    "-s",
    "--status",
    type=click.Choice([each.value for each in Status], case_sensitive=False),
    help="Everybody's in this status.",
)
@click.option("-o", "--owner", metavar="OWNER", help="This owner's.")
@answering
def list_(everybody: bool, status: str | None, owner: str | None, answer: Answer) -> int:
    """List your sandboxes that are not destroyed.

    On a terminal this is a table. In a pipe it is one sandbox a line, without a header, with tabs between name,
    status, owner, end (UTC), number of guilds, id, and the schemas that really exist.
    """
    mine = not (everybody or status or owner)
    whose = owner or (actor(os.environ) if mine else None)
    statuses = [Status(status)] if status else [each for each in Status if each is not Status.DESTROYED]
    found = listing(Target.of(os.environ).database(), owner=whose, statuses=statuses)
    if answer.json:
        sandboxes = [show.listed_document(each) for each in found]
        print(json.dumps({"success": True, "count": len(found), "sandboxes": sandboxes}, indent=1))
    elif answer.quiet:
        _print_lines(clean(each.sandbox.name) for each in found)
    elif on_terminal():
        _draw_list(found, whose)
    else:
        _print_lines(show.line(each) for each in found)
    return 0


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _draw_list(found: list[Listed], whose: str | None) -> None:
    from sandbox.cli import screen

    if found:
        screen.show(screen.table(found, now=datetime.now(UTC)))
    else:
        of_whom = f" of {clean(whose)}'s" if whose else ""
        print(f"no sandboxes{of_whom}\n  next: gaib sandbox create my-sandbox")


@click.command(short_help="Say how a sandbox is.")
@click.argument("name", type=NAME)
@click.option("-w", "--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "-i",
    "--interval",
    type=SECONDS,
    default=5,
    show_default=True,
    help="Seconds between the looks of --watch.",
)
@answering
def status(name: str, watch: bool, interval: float, answer: Answer) -> int:
    """Say how the sandbox NAME is: its status, schema, routes, keys and events.

    It ends with 0 for healthy, 2 for degraded or unhealthy, 3 where a server did not answer. With --watch it draws
    over itself on a terminal, prints one block an interval in a pipe, and ends with 0.
    """
    target = Target.of(os.environ, timeout=health.DEADLINE)
    database, keys, messaging = target.database(), target.readable_keys(), target.messaging()

    def look() -> Health:
        return health.examine(database, keys, messaging, name, now=datetime.now(UTC))

    if watch:
        return _watch(look, name, interval, answer)
    found = look()
    if on_terminal() and not answer.json and not answer.quiet:
        from sandbox.cli import screen

        screen.show(screen.health(found))
    else:
        answer.give(report.text(found), report.document(found), brief=report.verdict(found))
    return _EXITS[found.level]


def _watch(look: Callable[[], Health], name: str, interval: float, answer: Answer) -> int:
    redrawn = on_terminal() and os.environ.get("TERM") not in (None, "dumb", "unknown")
    if redrawn and not answer.json and not answer.quiet:
        from sandbox.cli import screen

        with screen.in_place() as draw:
            gone = until_seen(look, lambda frame: draw(screen.health(frame)), name=name, interval=interval)
    else:
        gone = until_seen(look, lambda frame: _print_frame(frame, answer), name=name, interval=interval)
    if gone:
        answer.note(f"{clean(name)} is gone: the watch ends")
    return 0


def _print_frame(frame: Health | Blind, answer: Answer) -> None:
    if answer.json:
        text = json.dumps(report.document(frame))
    elif answer.quiet:
        text = report.verdict(frame)
    else:
        text = report.text(frame) + "\n"
    print(text, flush=True)


@click.command(short_help="Print the variables that a program in a sandbox reads.")
@click.argument("name", type=NAME)
@answering
def connect(name: str, answer: Answer) -> int:
    """Print the lines that set the variables of the sandbox NAME in a shell: `eval $(gaib sandbox connect NAME)`.

    The schema is the one that really exists. Nothing of it is secret. With --quiet there is no note beside them.
    """
    found = health.connection(Target.of(os.environ).database(), name)
    if answer.json:
        print(json.dumps(report.connected(found, shell.variables(found)), indent=1))
    else:
        print(shell.exports(shell.variables(found)))
        answer.note(f"{clean(name)}: SANDBOX_SCHEMA is {clean(found.schema)}")
    return 0
