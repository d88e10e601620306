"""What an environment's file says, and what is refused of it."""

from dataclasses import fields
from pathlib import Path

import pytest

from diagnostics.stack import Stack
from runbooks.engine.environment import resolve
from sandbox.errors import ArrakisError

ROOT = Path(__file__).resolve().parents[2]
URLS = {
    "DATABASE_URL": "postgresql://db.example:5432/app",
    "REDIS_URL": "redis://redis.example:6379/0",
    "NATS_URL": "nats://nats.example:4222",
}


def stack_of(tmp_path: Path, text: str) -> Stack:
    """Return the stack that an environment's file describes."""
    (tmp_path / "sietch.toml").write_text(text, encoding="utf-8")
    return resolve("sietch", URLS, tmp_path, tmp_path).stack


def test_without_a_file_the_runbook_pages_own_names_hold(tmp_path: Path) -> None:
    assert resolve(None, URLS, tmp_path, tmp_path).stack == Stack()
    assert stack_of(tmp_path, "") == Stack()


def test_what_is_named_is_taken_and_the_rest_stays(tmp_path: Path) -> None:
    found = stack_of(tmp_path, '[stack]\ncluster = "sietch"\ncache = "spice"\nescalation = "Leto"\n')
    assert found == Stack(cluster="sietch", cache="spice", escalation="Leto")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[stack]\nclutser = "x"', "one of cluster"),
        ('[stack]\nzzz = "x"', "one of alarm_prefix, cleanup_logs"),
        ('[stack]\nCleanup-LOGS = "x"', "one of cleanup_logs"),
        ("[stack]\ncluster = 7", 'write it as cluster = "…"'),
        ('[stack]\nstream_replicas = "3"', "write it as stream_replicas = 3"),
        ("[stack]\nstream_replicas = true", "write it as stream_replicas = 3"),
        ('alarm_prefix = "arrakis-"', "move it there"),
        ('stack = "x"', 'write [stack], then cluster = "…"'),
    ],
)
def test_a_name_that_there_is_not_is_refused_with_the_near_one(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ArrakisError) as refused:
        stack_of(tmp_path, text)
    assert said in refused.value.hint


@pytest.mark.parametrize("name", ["production", "staging"])
def test_the_deployed_environments_name_all_but_whom_to_call(name: str) -> None:
    found = resolve(name, URLS, ROOT / "environments", Path()).stack
    named = {each.name for each in fields(Stack) if getattr(found, each.name) != getattr(Stack(), each.name)}
    assert named == {each.name for each in fields(Stack)} - {
        "escalation",
        "database_role",
        "journal_log_group",
    }
    assert all(f"arrakis-{name}" in getattr(found, each) for each in named - {"stream_replicas"})
