"""gaib without servers: what it refuses before it asks anybody, what it prints, what a shell makes of it."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.cli import main, reference, report, shell, show
from sandbox.cli.completion import suggest
from sandbox.cli.ending import Refused, code_of, exit_of
from sandbox.cli.listing import Listed
from sandbox.cli.preview import Preview
from sandbox.cli.target import Target, actor
from sandbox.cli.watch import Blind, frames, pause
from sandbox.errors import ArrakisError, Busy, Denied, SandboxCode, SandboxError, Unreachable
from sandbox.health import Check, Health, Level
from sandbox.model import Sandbox, Status

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
ID = UUID("3f2b8c1e-0000-4000-8000-000000000001")
NOBODY = "postgresql://chani:sietch-tabr@127.0.0.1:1/arrakis"  # nothing listens on port 1
SHELLS = [name for name in ("dash", "bash", "zsh") if shutil.which(name)]


def row(name: str = "my-sandbox", status: Status = Status.RUNNING, **fields: object) -> Sandbox:
    given: dict[str, object] = {
        "owner": "chani",
        "schema_name": f"sandbox_{ID}",
        "created_at": NOW - timedelta(hours=1),
        "expires_at": NOW + timedelta(hours=23),
    }
    return Sandbox(id=ID, name=name, status=status, **{**given, **fields})  # type: ignore[arg-type]


def healthy(*levels: Level, status: Status = Status.RUNNING, guilds: tuple[str, ...] = ()) -> Health:
    checks = [
        Check(name=f"look{n}", level=level, message="so", seconds=0.0042) for n, level in enumerate(levels)
    ]
    return Health(sandbox=row(status=status), guilds=guilds, schemas=(), checks=checks, checked_at=NOW)


@pytest.fixture
def nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that do not answer, so that whatever is said without them was said before they were asked."""
    for name in ("NATS_URL", "NATS_TLS_CA", "MAX_TTL_HOURS", "DEFAULT_TTL_HOURS", "MAX_SANDBOXES_PER_OWNER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", NOBODY)
    monkeypatch.setenv("REDIS_URL", "redis://:arrakeen@127.0.0.1:1/0")
    monkeypatch.setenv("SANDBOX_OWNER", "chani")


BAD = [
    (("create", "My Sandbox"), "is no name for a sandbox"),
    (("create", "x" * 65), "is no name for a sandbox"),
    (("create", "-x"), "No such option"),
    (("create", "x", "--ttl", "soon"), "'soon' is no duration"),
    (("create", "x", "--ttl", "0h"), "'0h' is no duration"),
    (("create", "x", "-t", "59d"), "at least 1 h and at most 168 h"),
    (("create", "x", "-g", "12a"), "'12a' is no guild id"),
    (("create", "x", "-g", "1", "-g", "٣"), "is no guild id"),
    (("status", "a\nb"), "can be no sandbox's name"),
    (("status", ""), "can be no sandbox's name"),
    (("status", "x", "-w", "-i", "0"), "'0' is no interval"),
    (("status", "x", "-w", "-i", "-1"), "'-1' is no interval"),
    (("status", "x", "-w", "-i", "nan"), "'nan' is no interval"),
    (("status", "x", "-w", "-i", "inf"), "'inf' is no interval"),
    (("register-guild", "x", "guild"), "'guild' is no guild id"),
    (("register-guild", "y" * 65, "1"), "can be no sandbox's name"),
    (("unregister-guild", "x", "1" * 21), "is no guild id"),
    (("connect", "\x1b[31m"), "can be no sandbox's name"),
    (("extend", "x", "tomorrow"), "'tomorrow' is no duration"),
    (("extend", "x"), "Missing argument 'TIME'"),
    (("destroy", "z" * 65, "--yes"), "can be no sandbox's name"),
    (("list", "--status", "gone"), "'gone' is not one of"),
    (("lst",), "No such command 'lst'"),
    (("list", "--purge"), "No such option"),
    (("list", "too", "much"), "unexpected extra argument"),
]


@pytest.mark.usefixtures("nobody_there")
@pytest.mark.parametrize(("args", "said"), BAD)
def test_wrong_input_is_answered_before_any_server_is_asked(
    args: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sandbox", *args]) == 1
    printed = capsys.readouterr()
    first, *rest = printed.err.splitlines()
    assert first.startswith("gaib: ")
    assert said in first
    assert len(rest) == 1
    assert rest[0].startswith("  next: ")
    assert printed.out == ""


@pytest.mark.usefixtures("nobody_there")
@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (("create", "My Sandbox"), 1, "INVALID"),
        (("create", "x", "-t", "59d"), 1, "SANDBOX_002"),
        (("status",), 1, "MISUSE"),
        (("connect", "x"), 3, "UNREACHABLE"),
        (("destroy", "x"), 4, "REFUSED"),
    ],
)
def test_with_json_an_error_is_a_document(
    args: tuple[str, ...], code: int, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sandbox", *args, "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["success"] is False
    assert document["error"]["code"] == word
    assert document["error"]["message"]
    assert document["error"]["hint"]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        ({"DATABASE_URL": "postgresql://chani:sietch-tabr@[::1/x"}, "DATABASE_URL is malformed"),
        ({"REDIS_URL": "http://:sietch-tabr@x"}, "REDIS_URL is malformed"),
        (
            {"REDIS_URL": "", "DATABASE_URL": "postgresql://chani:sietch-tabr@db.example/x"},
            "REDIS_URL is not set",
        ),
        ({"SANDBOX_OWNER": "", "USER": "", "USERNAME": ""}, "who are you?"),
        ({"SANDBOX_OWNER": "x" * 65}, "can own no sandbox"),
        ({"MAX_TTL_HOURS": "a week"}, "MAX_TTL_HOURS takes a whole number"),
    ],
)
@pytest.mark.usefixtures("nobody_there")
def test_a_wrong_environment_is_one_line_without_secrets(
    variables: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["sandbox", "create", "x"]) == 1
    printed = capsys.readouterr()
    assert said in printed.err.splitlines()[0]
    assert len(printed.err.splitlines()) == 2
    assert "sietch-tabr" not in printed.out + printed.err


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.usefixtures("nobody_there")
def test_what_nobody_thought_of_is_one_line(
    debug: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("sietch-tabr")

    monkeypatch.setattr("sandbox.cli.looks.listing", fails)
    monkeypatch.setattr("sandbox.cli.ending._let_go_of_output", lambda: None)
    if debug:
        monkeypatch.setenv("GAIB_DEBUG", "1")
    assert main(["sandbox", "list"]) == 1
    said = capsys.readouterr().err
    assert "gaib: something unexpected went wrong (RuntimeError)" in said
    assert ("Traceback" in said) is debug
    assert "sietch-tabr" not in said  # it is the database's password


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"SANDBOX_OWNER": "chani", "USER": "root"}, "chani"),
        ({"SANDBOX_OWNER": "", "USER": "stilgar", "USERNAME": "x"}, "stilgar"),
        ({"USERNAME": "gurney"}, "gurney"),
    ],
)
def test_who_is_asking(variables: dict[str, str], found: str) -> None:
    assert actor(variables) == found


@pytest.mark.parametrize(
    ("url", "others", "local"),
    [
        ("postgresql://x@localhost/db", {}, True),
        ("postgresql://x@127.0.0.1:6432/db", {}, True),
        ("postgresql://x@[::1]/db", {}, True),
        ("postgresql://x@localhost/db?sslmode=require", {}, True),
        ("postgresql://x@db.example/db", {}, False),
        ("postgresql://x@127.0.0.1.example/db", {}, False),
        ("postgresql://x@localhost,db.example/db", {}, False),
        ("postgresql://x@localhost/db?host=db.example", {}, False),
        ("postgresql://x@localhost/db?hostaddr=10.0.0.1", {}, False),
        ("postgresql:///db", {}, False),
        ("host=localhost dbname=db", {}, False),
        ("postgresql://x@localhost/db", {"PGHOSTADDR": "10.0.0.1"}, False),
        ("postgresql://x@localhost/db", {"PGSERVICE": "production"}, False),
    ],
)
def test_the_local_redis_belongs_to_a_database_here_and_to_no_other(
    url: str, others: dict[str, str], local: bool
) -> None:
    target = Target.of({"DATABASE_URL": url, **others})
    if local:
        assert target.keys().host == "localhost:6379/0"
        return
    with pytest.raises(ArrakisError, match="REDIS_URL is not set"):
        target.keys()
    with pytest.raises(ArrakisError, match="REDIS_URL is not set"):
        list(target.readable_keys().scan("*"))


def test_a_redis_that_is_named_is_taken() -> None:
    target = Target.of(
        {"DATABASE_URL": "postgresql://x@db.example/db", "REDIS_URL": "redis://cache.example:7/1"}
    )
    assert target.keys().host == "cache.example:7/1"
    assert target.readable_keys().host == "cache.example:7/1"


def test_without_nats_its_streams_are_unknown_and_no_address_is_shown() -> None:
    target = Target.of({"DATABASE_URL": NOBODY})
    with pytest.raises(ArrakisError, match="NATS_URL is not set"):
        target.messaging().stream("SANDBOX")
    assert "sietch-tabr" not in repr(target)


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (ArrakisError("x"), 1, "INVALID"),
        (Denied("x"), 1, "DENIED"),
        (Busy("x"), 1, "BUSY"),
        (Unreachable("x"), 3, "UNREACHABLE"),
        (Refused("x"), 4, "REFUSED"),
        (SandboxError(SandboxCode.NOT_FOUND, "x"), 1, "SANDBOX_004"),
        (SandboxError(SandboxCode.CLEANUP_FAILED, "x"), 5, "SANDBOX_006"),
    ],
)
def test_every_error_has_an_exit_code_and_a_word(error: ArrakisError, code: int, word: str) -> None:
    assert (exit_of(error), code_of(error)) == (code, word)


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (timedelta(days=6, hours=23, minutes=59), "6 d 23 h"),
        (timedelta(hours=24), "1 d 0 h"),
        (timedelta(hours=23, minutes=59, seconds=59), "23 h 59 min"),
        (timedelta(minutes=59, seconds=59), "59 min"),
        (timedelta(seconds=59), "0 min"),
    ],
)
def test_durations_in_words(duration: timedelta, words: str) -> None:
    assert show.in_words(duration) == words


@pytest.mark.parametrize(
    ("sandbox", "words"),
    [
        (row(), "23 h 0 min left"),
        (row(expires_at=NOW), "ended 0 min ago"),
        (row(expires_at=NOW - timedelta(days=2)), "ended 2 d 0 h ago"),
        (row(expires_at=None), "-"),
        (row(status=Status.DESTROYED), "-"),
    ],
)
def test_the_time_left_in_words(sandbox: Sandbox, words: str) -> None:
    assert show.left(sandbox, NOW) == words


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\x1b[2Jb", "a\u202eb", "a\u2028b"])
def test_a_listed_sandbox_is_one_line_of_seven_fields(name: str) -> None:
    listed = Listed(
        sandbox=row(name, owner=name), guilds=("1", "2"), schemas=(f"sandbox_{ID}", "sandbox_3f2b8c1e")
    )
    fields = show.line(listed).split("\t")
    assert len(show.line(listed).splitlines()) == 1
    assert fields[1:2] + fields[3:] == [
        "running",
        "2026-11-25T02:00:00Z",
        "2",
        str(ID),
        f"sandbox_{ID},sandbox_3f2b8c1e",
    ]
    assert fields[0] == fields[2]
    assert fields[0].isprintable()


def test_a_listed_sandbox_without_a_schema_shows_none_whatever_its_row_names() -> None:
    listed = Listed(sandbox=row(schema_name="pending_x", expires_at=None), guilds=(), schemas=())
    assert show.line(listed).split("\t")[3:] == ["-", "0", str(ID), "-"]


@pytest.mark.parametrize(
    ("name", "typed"),
    [("my-sandbox", "my-sandbox"), ("it's", "'it'\"'\"'s'"), ("-x", "-- -x"), ("a b", "'a b'")],
)
def test_a_name_as_it_is_typed(name: str, typed: str) -> None:
    assert show.argument(name) == typed


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (healthy(Level.HEALTHY), "healthy"),
        (healthy(Level.HEALTHY, Level.DEGRADED, Level.UNKNOWN), "degraded"),
        (healthy(Level.UNKNOWN, Level.HEALTHY), "unknown"),
        (Blind(name="my-sandbox", error=Unreachable("gone\x1b[2J"), at=NOW), "unknown"),
    ],
)
def test_a_report_begins_with_the_answer(found: Health | Blind, level: str) -> None:
    assert report.verdict(found) == f"my-sandbox: {level}"
    text = report.text(found)
    assert text.splitlines()[0] == f"my-sandbox: {level}"
    assert "2026-11-24T03:00:00Z" in text
    assert text.replace("\n", "").isprintable()
    assert report.document(found)["health"] == level


def test_a_report_says_what_was_looked_at() -> None:
    found = healthy(Level.DEGRADED, guilds=("7", "8"))
    assert "  degraded   look0    so (4 ms)" in report.text(found).splitlines()
    assert "  guilds    7, 8" in report.text(found).splitlines()
    document = report.document(found)
    assert document["checks"] == [
        {"name": "look0", "level": "degraded", "message": "so", "milliseconds": 4.2}
    ]
    assert document["timeLeftSeconds"] == 23 * 3600
    assert document["sandbox"]["guildIds"] == ["7", "8"]


@pytest.mark.parametrize(
    ("who", "whose"),
    [("chani", "is chani's ("), ("stilgar", "is chani's, not yours ("), (None, "is chani's (")],
)
def test_a_preview_points_out_another_owner(who: str | None, whose: str) -> None:
    seen = Preview(
        sandbox=row(), schemas=["sandbox_x"], guilds=["1"], dependents=[], keys=None, unknown="Redis is down"
    )
    text = show.preview_text(seen, who=who, now=NOW)
    assert whose in text
    assert "keys      cannot tell: Redis is down" in text
    assert "cannot go" not in text
    assert show.preview_document(seen)["keys"] is None


def test_a_preview_says_what_would_be_taken_along() -> None:
    seen = Preview(sandbox=row(), schemas=["sandbox_x"], guilds=(), dependents=["view v", "table t"], keys=1)
    assert show.preview_text(seen, who=None, now=NOW).endswith(
        "It cannot go: view v, table t would be taken along."
    )
    assert show.preview_document(seen)["dependents"] == ["view v", "table t"]


@pytest.mark.parametrize(
    ("status", "keys", "nothing"),
    [
        (Status.DESTROYED, 0, True),
        (Status.DESTROYED, 1, False),
        (Status.DESTROYED, None, False),
        (Status.RUNNING, 0, False),
    ],
)
def test_nothing_is_left_only_where_that_is_certain(status: Status, keys: int | None, nothing: bool) -> None:
    assert (
        Preview(sandbox=row(status=status), schemas=(), guilds=(), dependents=(), keys=keys).nothing
        is nothing
    )


@pytest.mark.parametrize(
    ("spent", "wait"), [(0.0, 5.0), (1.25, 3.75), (4.5, 0.5), (12.0, 3.0), (1000.5, 4.5)]
)
def test_waiting_ends_on_a_multiple_of_the_interval(spent: float, wait: float) -> None:
    assert pause(spent, 5.0) == pytest.approx(wait)


class Clock:
    """A clock that runs while somebody waits, and while they look."""

    def __init__(self) -> None:
        self.time, self.looked = 100.0, list[float]()

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float) -> None:
        self.time += seconds

    def looks(self, *found: Health | ArrakisError) -> Iterator[Health]:
        for each in found:
            self.looked.append(self.time)
            self.time += 1.5
            if isinstance(each, ArrakisError):
                raise each
            yield each


def seen(clock: Clock, *found: Health | ArrakisError) -> list[Health | Blind]:
    queue = list(found)

    def look() -> Health:
        return next(clock.looks(queue.pop(0)))

    return list(frames(look, "my-sandbox", interval=5.0, clock=clock.now, wait=clock.wait))


def test_a_watch_does_not_drift_and_ends_with_the_sandbox() -> None:
    clock, fine = Clock(), healthy(Level.HEALTHY)
    gone = healthy(Level.HEALTHY, status=Status.DESTROYED)
    assert seen(clock, fine, fine, fine, gone) == [fine, fine, fine, gone]
    assert clock.looked == [100.0, 105.0, 110.0, 115.0]


def test_a_watch_goes_on_when_a_server_goes_away() -> None:
    fine, away = healthy(Level.HEALTHY), Unreachable("PostgreSQL is down")
    shown = seen(Clock(), fine, away, fine, SandboxError(SandboxCode.NOT_FOUND, "x"))
    assert [isinstance(each, Blind) for each in shown] == [False, True, False]
    assert isinstance(shown[1], Blind)
    assert shown[1].error is away


def test_a_watch_does_not_begin_on_a_dead_server() -> None:
    with pytest.raises(Unreachable):
        seen(Clock(), Unreachable("PostgreSQL is down"))


SPECIAL = st.text("'\"$`*?[]{}();&|<>!#~=\\%   -a1é", min_size=1, max_size=64)
ANY = st.text(
    st.characters(exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")), min_size=1, max_size=64
)
NAMES = st.one_of(SPECIAL, ANY.filter(str.isprintable))
NASTY = [
    "$(touch pwned)",
    "`touch pwned`",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "a  b",
    " a ",
    "*",
    "[ab]?*",
    "\\",
    "\\0141",
    "%s%n%%",
    "-n",
    "!!",
    "~root",
    "=ls",
    "{a,b}",
    "a;b&c|d>e",
    "#x",
    "字 🏜",
    "x\\",
]


@pytest.fixture(scope="module")
def tempting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with files that patterns and half-read words would match."""
    folder = tmp_path_factory.mktemp("tempting")
    for name in (
        "a",
        "b",
        "export",
        "A0=a",
        "-n",
        "0141",
        "'01420143')\";",
        'A0="$(printf',
        "%b",
        "a b",
        "A0=*",
    ):
        (folder / name).touch()
    return folder


def set_in(shell_name: str, folder: Path, evaluate: str, values: list[str]) -> list[str]:
    """Return what a shell has in its variables after it evaluated the lines for these values."""
    lines = shell.exports({f"A{number}": value for number, value in enumerate(values)})
    tell = " ".join(f'"$A{number}"' for number in range(len(values)))
    done = subprocess.run(
        [shell_name, "-c", f"lines() {{ printf '%s\\n' \"$LINES_\"; }}; {evaluate}; printf '%s\\0' {tell}"],
        cwd=folder,
        env={"LINES_": lines, "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("evaluate", ["eval $(lines)", 'eval "$(lines)"'])
@pytest.mark.parametrize("shell_name", SHELLS)
def test_a_nasty_name_arrives_in_the_shell_as_it_is(shell_name: str, evaluate: str, tempting: Path) -> None:
    before = sorted(tempting.iterdir())
    assert set_in(shell_name, tempting, evaluate, NASTY) == NASTY
    assert sorted(tempting.iterdir()) == before


@pytest.mark.parametrize("evaluate", ["eval $(lines)", 'eval "$(lines)"'])
@pytest.mark.parametrize("shell_name", SHELLS)
def test_any_name_arrives_in_the_shell_as_it_is(shell_name: str, evaluate: str, tempting: Path) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.lists(NAMES, min_size=1, max_size=20))
    def arrives(names: list[str]) -> None:
        assert set_in(shell_name, tempting, evaluate, names) == names

    arrives()


def test_both_shells_that_are_everywhere_are_among_those_tried() -> None:
    assert {"dash", "bash"} <= set(SHELLS)


def test_a_plain_value_is_printed_as_it_is() -> None:
    assert shell.exports({"SANDBOX_NAME": "my-sandbox"}) == "export SANDBOX_NAME=my-sandbox;"


def test_a_value_with_a_line_break_is_refused() -> None:
    with pytest.raises(ArrakisError, match="control characters"):
        shell.exports({"SANDBOX_SCHEMA": "x\n"})


def test_the_reference_is_written_from_the_commands() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference.page()


def test_asking_for_help_loads_no_driver_and_no_neighbour() -> None:
    code = "import sys; from sandbox.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "click" in loaded
    assert not loaded & {
        "rich",
        "psycopg",
        "redis",
        "nats",
        "boto3",
        "runbooks",
        "diagnostics",
        "lab",
        "asyncio",
    }


@pytest.mark.usefixtures("nobody_there")
def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    for words in (
        "list, ls",
        "create, new",
        "connect, env",
        "register-guild, link",
        "unregister-guild, unlink",
    ):
        assert words in printed.err
    assert main(["sandbox", "rm", "-h"]) == 0
    assert "Take the sandbox NAME away" in capsys.readouterr().out


def test_names_are_not_completed_where_there_is_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert suggest("") == []
    monkeypatch.setenv("DATABASE_URL", NOBODY)
    assert suggest("") == []


def test_completing_waits_a_second_for_a_server_that_hangs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("DATABASE_URL", f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x")
        began = time.monotonic()
        assert suggest("") == []
    assert 0.9 < time.monotonic() - began < 5
    assert capsys.readouterr() == ("", "")
