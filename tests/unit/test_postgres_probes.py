"""What a session ran is shown without the values in it: they may be secrets, and they may command a terminal."""

from dataclasses import replace

import pytest

from tests.unit.evidence import behind, holder


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("SELECT * FROM profiles", "SELECT * FROM profiles"),
        ("ALTER ROLE ada PASSWORD 'it''s me'; SELECT 1", "ALTER ROLE ada PASSWORD '…'; SELECT 1"),
        (r"SELECT E'a\'b', 'c'", "SELECT '…', '…'"),
        (r"SELECT 'c:\', 'd'", "SELECT '…', '…'"),
        ("SELECT 'cut short", "SELECT '…'"),
        ("SELECT e'cut\\", "SELECT '…'"),
        ("""SELECT "it's", 'me' FROM t""", """SELECT "it's", '…' FROM t"""),
        ("SELECT\n  1\x1b[2J", "SELECT 1\\x1b[2J"),
    ],
)
def test_a_query_is_shown_without_its_values(query: str, shown: str) -> None:
    assert replace(holder(behind()), query=query).query == shown
