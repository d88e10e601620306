"""What a runbook says of itself: the sections of its docstring, and rights that are joined."""

from runbooks.engine.page import Page, Rights

TEXT = """RB-1: a thing.

It says something first, in which Trigger stands too.

Trigger    the alarm rings
Symptoms   it is slow:
             and told further in,
           or not at all
Looks at   what is there
             Archive  is not at the line's beginning
How        one by one
Undo       `undo`
"""


def test_each_section_stands_under_its_own_word_not_indented() -> None:
    assert Page(text=TEXT).sections == {
        "Trigger": "the alarm rings",
        "Symptoms": "it is slow:\n  and told further in,\nor not at all",
        "Looks at": "what is there\n  Archive  is not at the line's beginning",
        "How": "one by one",
        "Undo": "`undo`",
    }
    assert list(Page(text=TEXT).sections) == ["Trigger", "Symptoms", "Looks at", "How", "Undo"]


def test_every_word_begins_a_section_if_something_follows_it() -> None:
    words = ("Trigger", "Symptoms", "Looks at", "May change it", "How", "Archive", "Undo")
    assert list(Page(text="\n".join(f"{word} x" for word in words)).sections) == list(words)
    assert Page(text="Trigger\nUndo: x\nHowever x").sections == {}


def test_rights_are_joined_system_by_system() -> None:
    names = ("postgres", "redis", "nats", "aws")
    one, other = (Rights(**{name: frozenset({f"{name}{n}", "both"}) for name in names}) for n in (1, 2))
    joined = one | other
    for name in names:
        assert getattr(joined, name) == {f"{name}1", f"{name}2", "both"}
    assert Rights() | one == one
    assert Rights() == Rights(postgres=frozenset(), redis=frozenset(), nats=frozenset(), aws=frozenset())
    assert Page() == Page(
        text="", schedule="", examples=(), looks=(), thresholds=(), reads=Rights(), writes=Rights()
    )
