"""A card is shown as written and can do nothing but be read."""

from html.parser import HTMLParser

import pytest

from apps.registry.cards import SCHEMES, TAGS, card_html


class Read(HTMLParser):
    """Notes what a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs


def test_a_card_keeps_headings_lists_tables_and_links() -> None:
    html = card_html(
        "# Wine\n\n- **good**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[paper](https://x.org)"
    )
    for part in ("<h3>Wine</h3>", "<li><strong>good</strong></li>", "<td>1</td>"):
        assert part in html
    assert '<a href="https://x.org" rel="noopener noreferrer nofollow">paper</a>' in html


@pytest.mark.parametrize(
    "markdown",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt&#58;alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "![x](https://elsewhere.org/pixel.png)",
        "<a href='x' onclick='alert(1)'>x</a>",
        '[x](https://a.org "onmouseover=alert(1)")\n\n<iframe src=//a.org></iframe>',
        "<https://a.org/<script>>",
        "<style>*{display:none}</style>",
    ],
)
def test_nothing_in_a_card_runs_or_is_loaded(markdown: str) -> None:
    read = Read()
    read.feed(card_html(markdown))
    assert read.tags <= TAGS
    assert {name for name, _ in read.attributes} <= {"href", "rel", "title"}
    addresses = [value or "" for name, value in read.attributes if name == "href"]
    assert all(one.split(":")[0] in SCHEMES for one in addresses)


def test_an_empty_card_is_nothing() -> None:
    assert card_html("") == ""
