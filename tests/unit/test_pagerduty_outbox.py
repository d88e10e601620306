import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runbooks.pagerduty.outbox import Item, Outbox
from sandbox.errors import ArrakisError, Busy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "pagerduty"


def _texts(folder: Path) -> list[str]:
    return [item.text for item in Outbox(folder).items()]


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "outbox").iterdir())


def test_what_is_kept_is_there_for_the_next_process_and_nobody_else(folder: Path) -> None:
    outbox = Outbox(folder)
    outbox.keep("Q1A", "one", "first")
    outbox.keep("Q1A", None, "acknowledged")
    outbox.keep("Q1B", "one", "other\nlines \ud800")
    outbox.refuse(outbox.keep("Q1B", "two", "never"), "no")
    found = Outbox(folder).items()
    assert [(item.incident, item.step, item.text) for item in found] == [
        ("Q1A", "one", "first"),
        ("Q1A", None, "acknowledged"),
        ("Q1B", "one", "other\nlines \ud800"),
    ]
    assert Outbox(folder).items("Q1B") == found[2:]
    assert abs(found[0].kept_at - time.time()) < 60
    assert folder.stat().st_mode & 0o777 == 0o700
    for where in (folder / "outbox", folder / "refused"):
        assert where.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in where.iterdir()} == {0o600}


def test_a_later_note_of_a_step_stands_for_the_earlier(folder: Path) -> None:
    outbox = Outbox(folder)
    for text in ("first", "second", "third"):
        outbox.keep("Q1A", "one", text)
        outbox.keep("Q1A", "two", text)
    assert _texts(folder) == ["third", "third"]
    assert len(_files(folder)) == 2


def test_a_status_is_no_step_of_that_name(folder: Path) -> None:
    outbox = Outbox(folder)
    for step in ("None", "null", "", None):
        outbox.keep("Q1A", step, str(step))
    assert len(outbox.items()) == 4


def test_a_clock_that_goes_back_does_not_make_a_note_older(folder: Path) -> None:
    outbox = Outbox(folder)
    item = outbox.keep("Q1A", "one", "first")
    _put_at(folder, item, int(1e9 * (time.time() + 86_400)))
    [first] = outbox.items()
    outbox.keep("Q1A", "one", "second")
    assert _texts(folder) == ["second"]
    outbox.done(first)
    assert _texts(folder) == ["second"]


def test_what_was_kept_while_an_earlier_one_was_sent_stays(folder: Path) -> None:
    outbox = Outbox(folder)
    sent = outbox.keep("Q1A", "one", "first")
    Outbox(folder).keep("Q1A", "one", "second")
    outbox.done(sent)
    assert _texts(folder) == ["second"]
    [later] = outbox.items()
    outbox.done(later)
    outbox.done(later)  # by two at once
    assert _files(folder) == []


def test_done_takes_away_the_earlier_ones_that_a_killed_process_left(folder: Path) -> None:
    outbox = Outbox(folder)
    first = outbox.keep("Q1A", "one", "first")
    content = (folder / "outbox" / first.name).read_bytes()
    second = outbox.keep("Q1A", "one", "second")
    (folder / "outbox" / first.name).write_bytes(content)  # it was killed before it took this away
    assert _texts(folder) == ["second"]
    outbox.done(second)
    assert _files(folder) == []


def test_what_is_refused_is_set_aside_with_its_reason(folder: Path) -> None:
    outbox = Outbox(folder)
    outbox.refuse(outbox.keep("Q1A", "one", "the text"), "PagerDuty: no")
    assert outbox.items() == []
    [path] = outbox.refused.iterdir()
    assert "the text" in path.read_text()
    assert "PagerDuty: no" in path.read_text()


@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"name": 1}',
        b"\xff",
        b'{"name":"x","incident":"Q","step":null,"text":"t"}',
    ],
)
def test_what_cannot_be_read_is_set_aside_and_named(folder: Path, spoilt: bytes) -> None:
    outbox = Outbox(folder)
    item = outbox.keep("Q1A", "one", "whole")
    name = item.name.replace(item.name[:4], "0000", 1)
    (folder / "outbox" / name).write_bytes(spoilt)
    assert _texts(folder) == ["whole"]
    assert outbox.sweep() == [name]
    assert _files(folder) == [item.name]
    assert (outbox.refused / name).read_bytes() == spoilt
    assert outbox.sweep() == []


def test_half_written_files_are_no_items_and_go_in_time(folder: Path) -> None:
    outbox = Outbox(folder)
    outbox.keep("Q1A", "one", "whole")
    old, new = (folder / "outbox" / f".{number:020d}-a-b-c.json" for number in (1, 2))
    old.write_bytes(b'{"na')
    new.write_bytes(b'{"na')
    os.utime(old, (0, 0))
    assert outbox.sweep() == []
    assert _texts(folder) == ["whole"]
    assert (old.exists(), new.exists()) == (False, True)


def test_a_disk_that_takes_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "pagerduty").write_text("a file where the folder should be")
    outbox = Outbox(tmp_path / "pagerduty")
    with pytest.raises(ArrakisError, match="cannot be kept on disk") as caught:
        outbox.keep("Q1A", "one", "text")
    assert "RUNBOOKS_STATE_DIR" in caught.value.hint
    assert outbox.items() == []
    with outbox.locked("Q1A", time.monotonic()):  # there is nothing to share
        pass


def test_one_at_a_time_sends_to_an_incident(folder: Path) -> None:
    one, two = Outbox(folder), Outbox(folder)
    with one.locked("Q1A", time.monotonic()):
        began = time.monotonic()
        with pytest.raises(Busy, match="Q1A"), two.locked("Q1A", began + 0.2):
            pass
        assert time.monotonic() - began >= 0.2
        with two.locked("Q1B", time.monotonic()):
            pass
        entered = threading.Event()
        waiting = threading.Thread(target=_enter, args=(two, entered))
        waiting.start()
        assert not entered.is_set()
    waiting.join(10)
    assert entered.is_set()


def test_many_processes_keep_at_once(folder: Path) -> None:
    running = [
        _start(folder, f"for n in range(60): keep('Q1A', 'shared', '{who}'); keep('Q1A', f'{who} {{n}}', '')")
        for who in "ab"
    ]
    for each in running:
        assert each.wait(60) == 0
        assert each.stdout
        each.stdout.close()
    found = Outbox(folder).items()
    assert len(found) == 1 + 2 * 60
    assert sum(item.step == "shared" for item in found) == 1


def test_what_was_said_to_be_kept_outlives_a_kill(folder: Path) -> None:
    for _ in range(3):
        process = _start(
            folder, "for n in range(10**6): keep('Q1A', f'step {n % 7}', f'{n}'); print(n, flush=True)"
        )
        assert process.stdout
        said = [int(process.stdout.readline()) for _ in range(25)]
        process.kill()
        said += [int(line) for line in process.stdout.read().splitlines() if line]
        process.stdout.close()
        process.wait()
        outbox = Outbox(folder)
        assert outbox.sweep() == []
        latest = {item.step: int(item.text) for item in outbox.items()}
        for number in said[-7:]:
            kept = latest[f"step {number % 7}"]
            assert kept in (number, number + 7)  # that one may have been kept and not said yet
        for item in outbox.items():
            outbox.done(item)
        assert [name for name in _files(folder) if not name.startswith(".")] == []


def _enter(outbox: Outbox, entered: threading.Event) -> None:
    with outbox.locked("Q1A", time.monotonic() + 10):
        entered.set()


def _put_at(folder: Path, item: Item, number: int) -> None:
    """Let an item look as if it were kept at another time."""
    path = folder / "outbox" / item.name
    name = f"{number:020d}{item.name[20:]}"
    path.with_name(name).write_text(path.read_text().replace(item.name, name))
    path.unlink()


def _start(folder: Path, work: str) -> "subprocess.Popen[str]":
    program = f"""
import sys
from pathlib import Path
from runbooks.pagerduty.outbox import Outbox
keep = Outbox(Path(sys.argv[1])).keep
{work}
"""
    return subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
