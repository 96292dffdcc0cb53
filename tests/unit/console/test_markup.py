"""HTML of the console's own making: what others say is text in it, wherever it stands."""

from xai_console.markup import bar, join, picture, table_head, tag

HOSTILE = '</td><script>alert("&")</script>'


def test_texts_are_escaped_and_html_is_not():
    escaped = "&lt;/td&gt;&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt;"
    assert tag("td", HOSTILE) == f"<td>{escaped}</td>"
    assert tag("tr", tag("td", "a"), "b & c") == "<tr><td>a</td>b &amp; c</tr>"
    assert join(HOSTILE, tag("b", "x")) == f"{escaped}<b>x</b>"


def test_attributes_are_escaped_left_out_and_named_as_html_has_them():
    assert tag("span", "x", classes="num", data_tip='"<&') == '<span class="num" data-tip="&quot;&lt;&amp;">x</span>'
    assert tag("a", "x", href=None) == "<a>x</a>"


def test_what_was_cut_out_of_html_is_a_text_again():
    assert tag("td", tag("b", "x")[:2]) == "<td>&lt;b</td>"


def test_a_bar_is_a_share_of_one():
    assert [f"{width}%" in bar(share) for share, width in ((0.256, 25.6), (-1, 0.0), (7, 100.0))] == [True] * 3


def test_the_head_of_a_table_says_which_columns_are_numbers():
    head = '<thead><tr><th scope="col">a</th><th class="num" scope="col">b</th></tr></thead>'
    assert table_head(["a", "b"], 1) == head


def test_a_picture_fills_the_longer_side_of_its_place():
    assert 'src="/kept/a?x=&quot;&amp;"' in picture('/kept/a?x="&', (4, 3), "9px")
    assert "aspect-ratio:4/3;" in picture("a", (4, 3), "9px")
    assert "width:100%" in picture("a", (4, 3), "9px").replace("max-width:100%", "")
    assert "height:100%" in picture("a", (3, 4), "9px")
