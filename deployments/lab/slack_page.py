"""The lab's Slack for people: a channel as text for a terminal, and as one self-contained page for a browser."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8889; --card: #8881; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.2rem; border-bottom: 1px solid var(--line); padding-bottom: .5rem; }
.message { display: grid; grid-template-columns: 2.4rem 1fr; gap: .7rem; padding: .6rem 0; }
.face { width: 2.2rem; height: 2.2rem; border-radius: .4rem; background: #4a154b; color: #fff; display: grid;
  place-items: center; font-weight: 700; }
.message > div { min-width: 0; }
.who { font-weight: 700; } .when, .context, .edited { color: var(--soft); font-size: .85rem; font-weight: 400; }
.header { font-size: 1.15rem; font-weight: 800; margin: .3rem 0; }
.section { margin: .35rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.fields { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .3rem 1rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .3rem; padding: .5rem; overflow-x: auto; margin: .2rem 0;
  font-size: .8rem; }
code { background: var(--card); border: 1px solid var(--line); border-radius: .2rem; padding: 0 .2rem; color: #c2185b; }
.thread { border-left: 3px solid var(--line); margin-left: 3.1rem; padding-left: 1rem; }
.thread .face { width: 1.5rem; height: 1.5rem; font-size: .8rem; } .thread .message { padding: .3rem 0; }
summary { cursor: pointer; color: #1264a3; }
"""


def as_text(name: str, messages: list[dict[str, Any]]) -> str:
    """A channel with its threads, oldest first."""
    lines = [f"#{name}: {len(messages)} message(s)"]
    for message in messages:
        lines += ["", *_message_text(message, "")]
        for reply in message.get("replies", ()):
            lines += _message_text(reply, "    | ")
    return "\n".join(lines)


def as_page(channels: dict[str, list[dict[str, Any]]]) -> str:
    """All channels that hold something as one page; no script, no other file."""
    body = "".join(
        f"<h1>#{html.escape(name)}</h1>" + "".join(_message_html(one) for one in messages)
        for name, messages in channels.items()
        if messages
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Slack of the lab</title><style>{_STYLE}</style><body>{body or '<p>Nothing was said yet.</p>'}</body></html>\n"
    )


def _when(ts: str) -> str:
    return f"{datetime.fromtimestamp(float(ts), UTC):%H:%M:%S}"


def _message_text(message: dict[str, Any], indent: str) -> Iterator[str]:
    edited = f", edited {_when(message['edited']['ts'])}" if "edited" in message else ""
    yield f"{indent}failover  {_when(message['ts'])}{edited}"
    for text in _texts(message):
        for line in html.unescape(_links(text)).splitlines():
            yield f"{indent}  {line}".rstrip()


def _texts(message: dict[str, Any]) -> Iterator[str]:
    if not message.get("blocks"):
        yield str(message["text"])
    for block in message.get("blocks") or ():
        if "fields" in block:
            yield "  ".join(str(one["text"]).replace("\n", " ") for one in block["fields"])
        elif "elements" in block:
            yield from (str(one["text"]) for one in block["elements"])
        elif block["type"] == "header":
            yield f"== {block['text']['text']} =="
        elif "text" in block:
            yield str(block["text"]["text"]).replace("```\n", "").replace("\n```", "")


def _links(text: str) -> str:
    return re.sub(r"<([^|>]+)\|([^>]+)>", r"\2 (\1)", text)


def _message_html(message: dict[str, Any]) -> str:
    edited = f' <span class="edited">(edited {_when(message["edited"]["ts"])})</span>' if "edited" in message else ""
    blocks = "".join(_block_html(one) for one in message.get("blocks") or ()) or f'<div class="section">{_mrkdwn(message["text"])}</div>'
    told = (
        f'<div class="message"><div class="face">F</div><div><div class="who">failover <span class="when">APP '
        f"{_when(message['ts'])} UTC</span>{edited}</div>{blocks}</div></div>"
    )
    replies = message.get("replies") or ()
    if not replies:
        return told
    inner = "".join(_message_html(one) for one in replies)
    return f'{told}<details class="thread" open><summary>{len(replies)} replies</summary>{inner}</details>'


def _block_html(block: dict[str, Any]) -> str:
    if block["type"] == "header":
        return f'<div class="header">{_safe(block["text"]["text"])}</div>'
    if "fields" in block:
        fields = "".join(f"<div>{_mrkdwn(one['text'])}</div>" for one in block["fields"])
        return f'<div class="section fields">{fields}</div>'
    if "elements" in block:
        return f'<div class="context">{" ".join(_mrkdwn(one["text"]) for one in block["elements"])}</div>'
    return f'<div class="section">{_mrkdwn(block["text"]["text"])}</div>' if "text" in block else "<hr>"


def _safe(text: str) -> str:
    """Slack's text has &, < and > escaped already; whatever else could be markup here is escaped now."""
    return html.escape(html.unescape(text))


def _mrkdwn(text: str) -> str:
    """Code, links and bold, as Slack shows them; everything else stands as it is."""
    parts = re.split(r"(```.*?```|`[^`\n]+`|<https?://[^|>]+\|[^>]+>|\*[^*\n]+\*)", text, flags=re.DOTALL)
    return "".join(_piece(part) for part in parts)


def _piece(part: str) -> str:
    if part.startswith("```") and part.endswith("```") and len(part) > 5:
        return f"<pre>{_safe(part[3:-3].strip(chr(10)))}</pre>"
    if len(part) > 2 and part[0] == part[-1] == "`":
        return f"<code>{_safe(part[1:-1])}</code>"
    if part.startswith("<http"):
        address, _, label = part[1:-1].partition("|")
        return f'<a href="{html.escape(address)}">{_safe(label)}</a>'
    if len(part) > 2 and part[0] == part[-1] == "*":
        return f"<b>{_safe(part[1:-1])}</b>"
    return _safe(part)
