"""A model card as HTML; plain Python.

A card is Markdown that anybody of a team writes and everybody of the team reads. So raw HTML is
text, an allow list decides what is left of the rendered page, and nothing is loaded from anywhere.
"""

from functools import cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore

# A card's headings stand below the panel's own.
SHIFT = {f"h{level}": f"h{min(level + 2, 6)}" for level in range(1, 7)}
TAGS = {
    *("p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a"),
    *("table", "thead", "tbody", "tr", "th", "td"),
    *SHIFT.values(),
}
SCHEMES = {"http", "https", "mailto"}
LINK_RELATION = "noopener noreferrer nofollow"


def card_html(markdown: str) -> str:
    """Return a card as HTML that is safe to show."""
    return nh3.clean(
        _parser().render(markdown),
        tags=TAGS,
        attributes={"a": {"href", "title"}, "ol": {"start"}},
        url_schemes=SCHEMES,
        link_rel=LINK_RELATION,
    )


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.disable("image")  # an image would tell its host who reads the card
    parser.core.ruler.push("headings", _lower_headings)
    return parser


def _lower_headings(state: StateCore) -> None:
    for token in state.tokens:
        token.tag = SHIFT.get(token.tag, token.tag)
