"""What others may have written, put wherever a document has their words."""

from typing import Any

from hypothesis import strategies as st

from sandbox.text import clean

__all__ = ["MARK", "NASTY", "TEXTS", "bare", "infested"]

MARK = "QQ"
"""A text that nobody has to be afraid of, and that no page has by itself."""

_OURS = (
    "after",
    "before",
    "at",
    "created_at",
    "expires_at",
    "kind",
    "moments",
    "name",
    "outcome",
    "phase",
    "points",
    "reversibility",
    "runbook",
    "severity",
    "was",
)
NASTY = (
    "</details></main><script>alert(1)</script>",
    '" onload=alert(1) x="',
    "<!-- --><style>*{display:none}</style>]]>",
    "&lt;b&gt;&#60;b&#62;",
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2066",
    "a\nb\r\nc\u2028d\x85e",
    "x | y || \\| `|` \\\\|",
    "a|b",
    "```\n# heading\n```",
    "`code` **bold** __bold__ ~~gone~~ _it_ [a](https://example.org) ![b](c) <https://example.org>",
    "# heading",
    "- item",
    "1. one",
    "12) twelve",
    "+ plus",
    "===",
    "---",
    "> quote",
    "    code",
    "[x]: https://example.org",
    "https://example.org/?a=b&c www.example.org jane@example.org",
    "\ud800",
    "2026-99-99T99:99:99Z",
    "ends in a backslash \\",
)
"""Texts that mean something to a browser, a terminal or a reader of Markdown."""

_AWKWARD = st.text(st.sampled_from("|\\`*_~<>&[]()#-+=!\"'.:/ \n\r\t0a"), max_size=30)

TEXTS = st.one_of(st.sampled_from(NASTY), _AWKWARD, st.text(max_size=30)).filter(
    lambda text: text.strip() and clean(text).strip()
)
"""Such texts, and any others; none that is blank."""


def bare(text: str) -> str:
    """Return a text without what pages may leave out or put in: space, and _ in the name of a piece of evidence."""
    return "".join(text.replace("_", " ").split())


def infested(value: Any, text: str, *, key: str = "") -> Any:
    """Return a document with the text wherever it has one that others may have written, the keys of evidence included."""
    if key in ("before", "after", "evidence"):
        return {**{name: infested(each, text, key=name) for name, each in value.items()}, text: text}
    match value:
        case str() if key == "text":  # of the time line: it may have lines
            return clean(text)
        case str():
            return value if key in _OURS else text
        case dict():
            return {name: infested(each, text, key=name) for name, each in value.items()}
        case list():
            return [infested(each, text, key=key) for each in value]
        case _:
            return value
