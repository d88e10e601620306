"""What the shells complete: commands, options and statuses, which click knows, and the names of sandboxes."""

import os
import re
from typing import Literal

import click
from click.shell_completion import CompletionItem, get_completion_class

from sandbox import registry
from sandbox.cli.target import Target
from sandbox.deadline import within
from sandbox.model import Status

__all__ = ["SHELLS", "VARIABLE", "completion", "suggest"]

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_GAIB_COMPLETE"
"""The variable by which the shells' scripts ask for completions."""

_SECONDS = 1.0
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def suggest(incomplete: str) -> list[CompletionItem]:
    """Return the sandboxes, not destroyed, whose name starts like this; none where that takes over a second.

    A name that a shell would read as more than a word is left out, as completing it would put it there unquoted.
    """

    def names() -> list[str]:
        with Target.of(os.environ, timeout=_SECONDS).database().snapshot() as snapshot:
            live = [status for status in Status if status is not Status.DESTROYED]
            return [row.name for row in registry.listing(snapshot, owner=None, statuses=live)]

    try:
        found = within(_SECONDS, names, "the list of names")
    except Exception:  # somebody is typing: a message would land in the middle of their line
        return []
    return [CompletionItem(name) for name in found if name.startswith(incomplete) and _PLAIN.fullmatch(name)]


@click.command(short_help="Print the script that makes a shell complete gaib's words.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: Literal["bash", "zsh", "fish"]) -> int:
    """Print the script that makes a shell complete commands, options, statuses and the names of sandboxes.

    \b
    bash   eval "$(gaib completion bash)"           in ~/.bashrc
    zsh    eval "$(gaib completion zsh)"            in ~/.zshrc, after compinit
    fish   gaib completion fish | source            in ~/.config/fish/config.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    root = click.get_current_context().find_root().command
    print(script(root, {}, "gaib", VARIABLE).source())
    return 0
