"""The reference of the command line, docs/cli.md, written from the commands themselves.

python -m sandbox.cli.reference > docs/cli.md
"""

import inspect
from collections.abc import Iterator, Mapping

import click

from sandbox.cli.app import ALIASES, gaib, sandbox
from sandbox.cli.completion import completion
from sandbox.cli.ending import EXITS
from sandbox.cli.target import VARIABLES

__all__ = ["page"]

_OPENING = """\
# gaib

Sandboxes of Arrakis, from a shell. This page is written from the commands by
`python -m sandbox.cli.reference > docs/cli.md`; a test keeps it so. For the first steps see
[quick-reference.md](quick-reference.md). Every command answers `-h` and `--help`; a name that starts with a hyphen goes
behind `--`.
"""


def page() -> str:
    """Return the whole page, as Markdown."""
    root = click.Context(gaib, info_name="gaib", **gaib.context_settings)
    below = click.Context(sandbox, info_name="sandbox", parent=root)
    sections = [_OPENING]
    sections += ["\n".join(_command(command, below)) for command in sandbox.commands.values()]
    sections += ["\n".join(_command(completion, root))]
    sections += [
        _table("Exit codes", "code", {str(code): meaning for code, meaning in EXITS.items()}),
        _table("Environment variables", "variable", VARIABLES),
    ]
    return "\n".join(sections)


def _command(command: click.Command, parent: click.Context) -> Iterator[str]:
    name = str(command.name)
    context = click.Context(command, info_name=name, parent=parent)
    yield f"## {context.command_path}\n"
    yield f"```\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```\n"
    if short := next((short for short, long in ALIASES.items() if long == name), None):
        yield f"Short name: `{parent.command_path} {short}`\n"
    yield _prose(inspect.cleandoc(command.help or "")) + "\n"
    records = [each.get_help_record(context) for each in command.params if isinstance(each, click.Option)]
    if records:
        yield "| option | meaning |\n|---|---|"
        yield from (f"| `{_cell(record[0])}` | {_cell(record[1])} |" for record in records if record)
        yield ""


def _prose(text: str) -> str:
    """Return a help text as Markdown: what click keeps as it stands, between \\b and a blank line, is a block."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        f"```\n{each.removeprefix(_KEPT)}\n```" if each.startswith(_KEPT) else each for each in paragraphs
    )


_KEPT = "\b\n"


def _table(title: str, what: str, meanings: Mapping[str, str]) -> str:
    rows = [f"| `{name}` | {_cell(meaning)} |" for name, meaning in meanings.items()]
    return "\n".join([f"## {title}\n", f"| {what} | meaning |", "|---|---|", *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
