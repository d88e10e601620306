"""The command line around the tasks: groups, near words, examples, completion."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from runbooks.catalogue import RUNBOOKS
from sandbox.text import near

ROOT = Path(__file__).resolve().parents[2]


def call(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runbooks", *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "RUNBOOKS_COMMAND": "./inv", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_task_is_in_one_group_and_the_alarms_come_first() -> None:
    listed = call("--list").stdout
    names = re.findall(r"^  ([a-z][a-z0-9-]+)  ", listed, re.MULTILINE)
    assert sorted(names) == sorted(tasks.namespace.task_names)
    assert listed.startswith("Woken by an alarm:\n  triage ")
    assert max(map(len, listed.splitlines())) <= 80


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (("rb-sb-03",), "there is no task 'rb-sb-03'\n  next: did you mean rb-sb-003?"),
        (("RB_SB_004",), "there is no task 'RB_SB_004'\n  next: did you mean rb-sb-004?"),
        (("emergncy-stop",), "there is no task 'emergncy-stop'\n  next: did you mean emergency-stop?"),
        (
            ("production-sandbox-orphaned-resources",),
            "there is no task 'production-sandbox-orphaned-resources'\n  next: did you mean rb-sb-003?",
        ),
        (("rb-sb-003", "--aply"), "rb-sb-003 has no option --aply\n  next: did you mean --apply?"),
        (
            ("rb-sb-003", "--max_targets", "3"),
            "rb-sb-003 has no option --max_targets\n  next: did you mean --max-targets?",
        ),
        (
            ("rb-sb-003", "--xyzzy"),
            "rb-sb-003 has no option --xyzzy\n  next: `./inv rb-sb-003 --help` shows what there is",
        ),
        (("xyzzy",), "there is no task 'xyzzy'\n  next: `./inv --list` shows what there is"),
        (("--help", "audti"), "there is no task 'audti'\n  next: did you mean audit?"),
    ],
)
def test_what_is_near_is_suggested(typed: tuple[str, ...], told: str) -> None:
    answer = call(*typed)
    assert (answer.returncode, answer.stdout, answer.stderr.strip()) == (1, "", told)


def test_a_word_that_is_like_nothing_is_near_to_nothing() -> None:
    assert near("xyzzy", ["rb-sb-001", "audit"]) == ""


@pytest.mark.parametrize("name", ["rb-sb-003", "apply", "audit"])
def test_help_has_examples(name: str) -> None:
    shown = call(name, "--help").stdout
    assert f"Examples:\n  ./inv {name}" in shown


def test_whoever_stops_reading_is_told_nothing_more() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "runbooks", "--list"],
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def completed(line: str) -> list[str]:
    return call("--complete", "--", *line.split(" ")).stdout.split()


def test_words_are_completed() -> None:
    assert {"rb-sb-003", "audit"} <= set(completed("inv "))
    assert {"--apply", "--drop"} <= set(completed("inv rb-sb-003 --"))
    assert completed("inv rb-sb-003 --env") == ["production", "staging"]
    assert completed("inv rb-sb-003 --env pro") == ["production", "staging"]
    assert completed("inv explain") == list(RUNBOOKS)
    assert completed("inv audit --fail-on") == ["warning", "critical"]


def test_a_value_that_is_whole_is_not_offered_again() -> None:
    assert "--apply" in completed("inv rb-sb-003 --env production --")
    assert "production" not in completed("inv rb-sb-003 --env production ")
    assert "rb-sb-001" not in completed("inv explain --runbook rb-sb-003 --")


def test_an_open_quote_completes_nothing_and_says_nothing() -> None:
    answer = call("--complete", "--", "inv", "emergency-stop", "--reason", '"events go')
    assert (answer.stdout, answer.stderr) == ("", "")


@pytest.mark.parametrize("typed", [("--list",), ("explain", "rb-sb-003")])
def test_a_terminal_that_lacks_letters_gets_the_answer(typed: tuple[str, ...]) -> None:
    done = call(*typed, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_what_is_called_by_its_path() -> None:
    script = call("--print-completion-script", "bash").stdout
    typed = "COMP_WORDS=(./inv rb-sb-003 --ap); _complete_inv ./inv --ap rb-sb-003; echo ${COMPREPLY[@]}"
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{typed}"],
        cwd=ROOT,
        # It begins with whichever python3 comes first, and one of another version would make .venv anew.
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["--apply"], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    script = call("--print-completion-script", shell).stdout
    assert "--complete" in script
    assert "inv --complete" not in script  # it calls what is typed


def test_another_shell_is_told_which_there_are() -> None:
    answer = call("--print-completion-script", "tcsh")
    assert answer.returncode == 1
    assert "bash, fish, zsh" in answer.stderr
