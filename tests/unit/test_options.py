"""What is typed behind an option."""

import pytest

from runbooks.options import incident
from sandbox.errors import ArrakisError


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("", ""),
        ("Q1ABC23DEF", "Q1ABC23DEF"),
        (" 4711 ", "4711"),
        ("https://acme.pagerduty.com/incidents/Q1ABC23DEF", "Q1ABC23DEF"),
        ("https://acme.eu.pagerduty.com/incidents/Q1ABC23DEF?utm=x#notes", "Q1ABC23DEF"),
        ("https://acme.pagerduty.com/incidents/Q1ABC23DEF/timeline", "Q1ABC23DEF"),
    ],
)
def test_an_incident_is_its_id_or_its_pages_address(typed: str, named: str) -> None:
    assert incident(typed) == named


@pytest.mark.parametrize(
    "typed", ["../../etc", "Q1/notes", "q1", "Q" * 41, "https://acme.pagerduty.com/incidents/", "http://x/Q1"]
)
def test_what_is_no_incident_is_refused(typed: str) -> None:
    with pytest.raises(ArrakisError, match="takes an incident's id"):
        incident(typed)
