"""The commands that change something: create, register-guild, unregister-guild, extend."""

import os
from datetime import timedelta
from uuid import uuid4

import click

from sandbox import lifecycle, registry
from sandbox.cli import show
from sandbox.cli.options import DURATION, GUILD, NAME, NEW_NAME, Answer, answering
from sandbox.cli.target import Target, actor
from sandbox.lifecycle import Change, Request
from sandbox.limits import Limits, check_ttl, default_name
from sandbox.text import clean

__all__ = ["create", "extend", "register_guild", "unregister_guild"]

_UNSETTLED = "cached routes may be wrong for a minute"


@click.command(short_help="Create a sandbox.")
@click.argument("name", type=NEW_NAME, required=False)
@click.option("-t", "--ttl", type=DURATION, metavar="TIME", help="How long it lives: 48h, 7d, or hours.")
@click.option(
    "-g",
    "--guild",
    "guilds",
    type=GUILD,
    multiple=True,
    metavar="GUILD",
    help="Map this guild to it; repeatable.",
)
@answering
def create(name: str | None, ttl: timedelta | None, guilds: tuple[str, ...], answer: Answer) -> int:
    """Create the sandbox NAME, or one that is named after you: its row and its schema, all of it or nothing.

    It lives for 24 h where no --ttl is given, and is taken away after that.
    """
    who, limits, target = actor(os.environ), Limits.of(os.environ), Target.of(os.environ)
    check_ttl(limits.default_ttl if ttl is None else ttl, limits)
    database, keys = target.database(), target.keys()
    now = registry.time_of(database)
    request = Request(
        id=uuid4(),
        name=name or default_name(who),
        owner=who,
        now=now,
        ttl=limits.default_ttl if ttl is None else ttl,
        guilds=sorted(set(guilds)),
    )
    change = lifecycle.create(database, keys, request, limits=limits)
    row = change.sandbox
    warning = answer.warn(change.unsettled, _UNSETTLED)
    listed = {"schemas": [row.schema_name], "guildIds": list(request.guilds)}
    document = {"success": True, "sandbox": {**show.summary(row), **listed}, **warning}
    answer.give(show.created(row, request.guilds, now=now), document, brief=clean(row.name))
    return 0


@click.command("register-guild", short_help="Map a guild to a sandbox.")
@click.argument("name", type=NAME)
@click.argument("guild", type=GUILD)
@answering
def register_guild(name: str, guild: str, answer: Answer) -> int:
    """Map GUILD to the sandbox NAME, which has to be running: its events go there from now on. Safe to repeat."""
    target, who = Target.of(os.environ), actor(os.environ)
    change = lifecycle.register_guild(target.database(), target.keys(), name, guild, actor=who)
    done = "is mapped to {} now" if change.changed else "is mapped to {} already"
    return _mapped(change, guild, done, answer)


@click.command("unregister-guild", short_help="End a guild's mapping to a sandbox.")
@click.argument("name", type=NAME)
@click.argument("guild", type=GUILD)
@answering
def unregister_guild(name: str, guild: str, answer: Answer) -> int:
    """End the mapping of GUILD to the sandbox NAME: its events go to production from now on. Safe to repeat."""
    target, who = Target.of(os.environ), actor(os.environ)
    change = lifecycle.unregister_guild(target.database(), target.keys(), name, guild, actor=who)
    done = "is mapped to {} no longer" if change.changed else "was not mapped to {}"
    return _mapped(change, guild, done, answer)


@click.command(short_help="Let a sandbox live longer.")
@click.argument("name", type=NAME)
@click.argument("time", type=DURATION)
@answering
def extend(name: str, time: timedelta, answer: Answer) -> int:
    """Let the sandbox NAME live TIME longer (24h, 7d, or hours); an expired one is running again.

    It may live for 168 h after its creation, and is given no more than that.
    """
    target, who, limits = Target.of(os.environ), actor(os.environ), Limits.of(os.environ)
    database, keys = target.database(), target.keys()
    now = registry.time_of(database)
    change = lifecycle.extend(database, keys, name, time, actor=who, now=now, limits=limits)
    row = change.sandbox
    most = row.expires_at == row.created_at + limits.most_ttl
    limit = f"; it may live no longer than that, {limits.most_ttl // timedelta(hours=1)} h after its creation"
    text = f"{clean(name)} lives until {show.iso(row.expires_at)} ({show.left(row, now)})"
    document = {"success": True, "sandbox": show.summary(row), "atLimit": most}
    answer.give(text + (limit if most else ""), {**document, **answer.warn(change.unsettled, _UNSETTLED)})
    return 0


def _mapped(change: Change, guild: str, done: str, answer: Answer) -> int:
    document = {
        "success": True,
        "changed": change.changed,
        "guildId": guild,
        "sandbox": show.summary(change.sandbox),
        **answer.warn(change.unsettled, _UNSETTLED),
    }
    answer.give(f"guild {guild} {done.format(clean(change.sandbox.name))}", document)
    return 0
