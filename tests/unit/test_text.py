"""Moments as texts have them, and near words."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from sandbox.text import moment, near, period

NOON = datetime(2026, 3, 1, 12, 0, 59, 578091, tzinfo=UTC)


def test_a_moment_is_in_utc_and_to_the_minute_unless_the_seconds_matter() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert moment(there) == "2026-03-01T12:00Z"
    assert moment(there, exact=True) == "2026-03-01T12:00:59Z"


@pytest.mark.parametrize(
    ("minutes", "told"), [(0, "2026-03-01T12:00Z"), (65, "2026-03-01T12:00Z/2026-03-01T13:05Z")]
)
def test_a_period_of_one_minute_is_told_once(minutes: int, told: str) -> None:
    assert period(NOON, NOON + timedelta(minutes=minutes)) == told


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("stagin", "staging"),
        ("STAGING", "staging"),
        ("Alarm-Prefix", "alarm_prefix"),
        ("--alarm_prefx", "alarm_prefix"),
        ("xyzzy", ""),
        ("", ""),
    ],
)
def test_a_word_is_near_in_whatever_case_and_with_whatever_dashes(word: str, meant: str) -> None:
    assert near(word, ["staging", "alarm_prefix", "production"]) == meant
