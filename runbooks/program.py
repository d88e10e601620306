"""The command line around the tasks: invoke's own, with the tasks in groups, near words suggested, and values completed.

`./inv` and the environment's `invoke` start it. invoke alone runs the same tasks, and lists them by the alphabet.
"""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO, TextIOWrapper
from itertools import pairwise

from invoke import __version__
from invoke.completion.complete import print_completion_script
from invoke.exceptions import Exit, ParseError
from invoke.parser.context import ParserContext
from invoke.program import Program

from sandbox.text import near

__all__ = ["program"]

_STRANGE = re.compile(r"No idea what '(?P<word>.*)' is!", re.DOTALL)
_HELP = ("--help", "-h")
_SCRIPTS = {  # invoke's scripts call `inv`; ours call what is being completed, wherever that is
    "bash": (
        (
            "`inv --complete -- ${COMP_WORDS[*]}`",
            '`"${COMP_WORDS[0]}" --complete -- inv "${COMP_WORDS[@]:1}"`',
        ),
    ),
    "zsh": (
        (
            "$(inv ${=collection_arg} --complete -- ${words})",
            '$(${words[1]} ${=collection_arg} --complete -- inv "${(@)words[2,-1]}")',
        ),
    ),
    "fish": (
        (
            "    inv --complete -- (commandline --tokenize)",
            "    set -l words (commandline -opc) (commandline -ct | string collect --allow-empty)\n"
            "    $words[1] --complete -- inv $words[2..-1]",
        ),
        ("complete --command inv ", "complete --command inv --command invoke "),
    ),
}


class _Toolkit(Program):
    """invoke's program, for this toolkit's tasks. What is in which group, tasks.py says."""

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:
        """Do what was typed; whoever stops reading, such as `head`, ends it quietly."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # who lacks a letter gets the answer
        try:
            super().run(argv, exit)
        except BrokenPipeError:
            sys.exit(1)
        finally:
            try:
                sys.stdout.flush()
            except OSError:  # what is left would be flushed at the exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)

    def parse_core_args(self) -> None:
        """Parse what stands before the first task, and answer --print-completion-script."""
        super().parse_core_args()
        shell = self.args["print-completion-script"].value
        if shell in _SCRIPTS:
            print(_script(shell, self.binary_names))
            raise Exit

    def parse_tasks(self) -> None:
        """Parse the tasks and their options; what is none of them is told with what is near."""
        # Behind a task that is about something, such as a plan, invoke would take --help for that.
        for name, word in pairwise(self.core.unparsed):
            if word in _HELP and name in self.collection.task_names:
                self.args.help.value = name
                self.core.unparsed = []
        try:
            super().parse_tasks()
        except ParseError as error:
            raise ParseError(self._explained(error), error.context) from None

    def parse_cleanup(self) -> None:
        """Answer --help, --list and --complete."""
        if self.args.complete.value:
            self._complete()
        asked = self.args.help.value
        if isinstance(asked, str) and asked not in self.parser.contexts:
            raise ParseError(self._explained(ParseError(f"No idea what '{asked}' is!")))
        super().parse_cleanup()

    def list_flat(self) -> None:
        """List the tasks in their groups, the most urgent first."""
        known = dict(self._make_pairs(self.scoped_collection))
        groups: Sequence[tuple[str, Sequence[str]]] = self.collection.configuration().get("groups", ())
        if not groups:
            return super().list_flat()
        margin = max(map(len, known))
        for title, names in groups:
            print(f"{title}:")
            self.print_columns([(name.ljust(margin), known[name]) for name in names])
        print(f"{self.binary} TASK --help says how to call it; {self.binary} explain RUNBOOK, what it does.")
        return None

    def print_task_help(self, name: str) -> None:
        """Print how a task is called, with examples."""
        super().print_task_help(name)
        from runbooks.usage import examples

        if found := examples(name):
            print("Examples:")
            for command, why in found:
                print(f"{self.leading_indent}{self.binary} {command}\n{self.leading_indent}    {why}")
            print()

    def _explained(self, error: ParseError) -> str:
        """Return what is wrong with what was typed, and what may have been meant."""
        strange = _STRANGE.fullmatch(str(error))
        if strange is None:
            return str(error)
        word, context = strange["word"], error.context
        if word.startswith("-") and context is not None:
            flags = [flag for flag in context.flag_names() if flag.startswith("--")]
            return _unknown(
                f"{context.name or self.binary} has no option {word}", near(word, flags), self._help(context)
            )
        tasks = list(self.parser.contexts)
        return _unknown(f"there is no task {word!r}", _task(word, tasks), f"{self.binary} --list")

    def _help(self, context: ParserContext) -> str:
        return f"{self.binary} {context.name} --help" if context.name else f"{self.binary} --help"

    def _complete(self) -> None:
        """Complete what an option takes, where that is a closed set; everything else is invoke's to complete."""
        from runbooks.usage import values

        typed = self.core.remainder
        try:
            words = shlex.split(typed)
        except ValueError:  # a quote that is still open: there is nothing to complete
            raise Exit from None
        partial = 1 if typed.endswith(" ") else 2
        for word in words[: -partial - 1 : -1]:
            if found := values(word):
                print("\n".join(found))
                raise Exit


def _script(shell: str, names: Sequence[str]) -> str:
    """Return what makes a shell complete these commands."""
    with redirect_stdout(StringIO()) as script:
        print_completion_script(shell, list(names))
    text = script.getvalue()
    for stock, ours in _SCRIPTS[shell]:
        if stock not in text:
            raise Exit(f"this version of invoke completes {shell} in a way that is not known here", 1)
        text = text.replace(stock, ours)
    return text


def _task(word: str, tasks: Sequence[str]) -> str:
    """Return the task that is meant: by its name, or by the alarm that calls for it."""
    from runbooks.catalogue import called_for

    called = called_for(word)
    return called.name if called else near(word, tasks)


def _unknown(told: str, meant: str, otherwise: str) -> str:
    hint = f"did you mean {meant}?" if meant else f"`{otherwise}` shows what there is"
    return f"{told}\n  next: {hint}"


program = _Toolkit(
    name="invoke",
    binary=os.environ.get("RUNBOOKS_COMMAND", "invoke"),
    binary_names=["inv", "invoke"],
    version=__version__,
)
"""What `python -m runbooks` runs."""
