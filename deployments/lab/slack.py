"""A Slack workspace in memory: the part of the Web API that the program uses, as strict as Slack about limits.

Pure but for its state: `call` takes the time and gives the answer. Faults and HTTP are `slack_server`'s business.
Kept apart from real Slack: two channels, one bot, no people, no search, no files; rates are per channel, not per team.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flows.slack_limits import problems

TOKEN: Final = "xoxb-lab"  # noqa: S105 - of a workspace that ends with the lab
CHANNELS: Final = {"C0INCIDENTS": "incidents", "C00DRILLS": "drills"}
BOT: Final = "U0FAILOVER"
_PAGE = 100
_METADATA = 8000

Json = dict[str, Any]


@dataclass
class Bucket:
    """So many calls a second on average, and so many at once."""

    rate: float
    burst: float
    left: float = -1.0
    at: float = 0.0

    def take(self, now: float) -> float:
        """Take one; give 0, or the seconds until there is one again."""
        self.left = self.burst if self.left < 0 else min(self.burst, self.left + (now - self.at) * self.rate)
        self.at = now
        if self.left < 1:
            return (1 - self.left) / self.rate
        self.left -= 1
        return 0.0


@dataclass(frozen=True)
class Reply:
    """What the API answers."""

    body: Json
    status: int = 200
    retry_after: int | None = None


@dataclass(frozen=True)
class Call:
    """One call that came in, for those who count: when, what, what was said, which message."""

    at: float
    method: str
    said: str
    ts: str = ""


@dataclass
class Workspace:
    """Channels with their messages."""

    messages: dict[str, list[Json]] = field(default_factory=lambda: {channel: [] for channel in CHANNELS})
    calls: list[Call] = field(default_factory=list)
    scopes: frozenset[str] = frozenset({"chat:write", "channels:history", "channels:read"})
    _rates: dict[tuple[str, str], Bucket] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _last: int = 0

    def call(self, method: str, token: str, given: Mapping[str, Any], now: float) -> Reply:
        """Do one call at a time (seconds since 1970)."""
        with self._lock:
            reply = self._do(method, given, now) if token == TOKEN else _no("invalid_auth")
            self.calls.append(Call(now, method, str(reply.body.get("error") or "ok"), str(reply.body.get("ts", ""))))
            return reply

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self.messages = {channel: [] for channel in CHANNELS}
            self.calls.clear()
            self._rates.clear()

    def seen(self) -> dict[str, list[Json]]:
        """What people see: channel name to its messages, oldest first, each with its thread under `replies`."""
        with self._lock:
            found = {}
            for channel, name in CHANNELS.items():
                every = copy.deepcopy(self.messages[channel])
                tops = [one for one in every if one.get("thread_ts", one["ts"]) == one["ts"]]
                for top in tops:
                    top["replies"] = [one for one in every if one.get("thread_ts") == top["ts"] and one is not top]
                found[name] = tops
            return found

    # -- methods

    def _do(self, method: str, given: Mapping[str, Any], now: float) -> Reply:
        match method:
            case "auth.test":
                return Reply({"ok": True, "user_id": BOT, "user": "failover", "team": "lab", "bot_id": "B0FAILOVER"})
            case "conversations.list":
                channels = [{"id": channel, "name": name, "is_channel": True} for channel, name in CHANNELS.items()]
                return self._scoped("channels:read", Reply({"ok": True, "channels": channels}))
            case "conversations.info":
                channel = _channel(given)
                found = {"id": channel, "name": CHANNELS.get(channel or "")}
                return Reply({"ok": True, "channel": found}) if channel else _no("channel_not_found")
            case "chat.postMessage":
                return self._post(given, now)
            case "chat.update":
                return self._update(given, now)
            case "conversations.history" | "conversations.replies":
                return self._scoped("channels:history", self._read(method, given))
        return _no("unknown_method")

    def _scoped(self, scope: str, reply: Reply) -> Reply:
        return reply if scope in self.scopes else Reply({"ok": False, "error": "missing_scope", "needed": scope})

    def _post(self, given: Mapping[str, Any], now: float) -> Reply:
        channel = _channel(given)
        if channel is None:
            return _no("channel_not_found")
        if (wrong := _wrong(given)) is not None:
            return wrong
        thread = given.get("thread_ts")
        if thread and not any(one["ts"] == thread for one in self.messages[channel]):
            return _no("thread_not_found")
        if (wait := self._bucket(channel, "post", 1.0, 3).take(now)) > 0:
            return _limited(wait)
        message: Json = {
            "type": "message", "user": BOT, "bot_id": "B0FAILOVER", "ts": self._stamp(now), "text": str(given.get("text") or ""),
            "blocks": copy.deepcopy(list(given.get("blocks") or [])),
        }  # fmt: skip
        message |= {"thread_ts": thread} if thread else {}
        message |= {"metadata": copy.deepcopy(given["metadata"])} if given.get("metadata") else {}
        self.messages[channel].append(message)
        return Reply({"ok": True, "channel": channel, "ts": message["ts"], "message": copy.deepcopy(message)})

    def _update(self, given: Mapping[str, Any], now: float) -> Reply:
        channel = given.get("channel")
        if channel not in CHANNELS:  # an edit takes ids only
            return _no("channel_not_found")
        message = next((one for one in self.messages[channel] if one["ts"] == given.get("ts")), None)
        if message is None:
            return _no("message_not_found")
        if (wrong := _wrong(given)) is not None:
            return wrong
        if (wait := self._bucket(channel, "update", 50 / 60, 20).take(now)) > 0:
            return _limited(wait)
        message["text"] = str(given.get("text") or "")
        message["blocks"] = copy.deepcopy(list(given.get("blocks") or []))
        message["edited"] = {"user": BOT, "ts": self._stamp(now)}
        if given.get("metadata"):
            message["metadata"] = copy.deepcopy(given["metadata"])
        return Reply({"ok": True, "channel": channel, "ts": message["ts"], "text": message["text"]})

    def _read(self, method: str, given: Mapping[str, Any]) -> Reply:
        channel = given.get("channel")
        if channel not in CHANNELS:
            return _no("channel_not_found")
        every = self.messages[channel]
        if method == "conversations.replies":
            found = [one for one in every if given.get("ts") in {one["ts"], one.get("thread_ts")}]
            if not found:
                return _no("thread_not_found")
        else:
            oldest, latest = float(given.get("oldest") or 0), float(given.get("latest") or math.inf)
            found = [one for one in reversed(every) if "thread_ts" not in one and oldest < float(one["ts"]) < latest]
        start, size = int(given.get("cursor") or 0), min(int(given.get("limit") or _PAGE), 999)
        page = copy.deepcopy(found[start : start + size])
        if str(given.get("include_all_metadata", "")).lower() not in {"1", "true"}:
            page = [{key: value for key, value in one.items() if key != "metadata"} for one in page]
        more = start + size < len(found)
        cursor = {"next_cursor": str(start + size) if more else ""}
        return Reply({"ok": True, "messages": page, "has_more": more, "response_metadata": cursor})

    def _bucket(self, channel: str, what: str, rate: float, burst: float) -> Bucket:
        return self._rates.setdefault((channel, what), Bucket(rate, burst))

    def _stamp(self, now: float) -> str:
        """A ts of Slack's form, each later than the one before."""
        self._last = max(self._last + 1, int(now * 1_000_000))
        return f"{self._last // 1_000_000}.{self._last % 1_000_000:06d}"


def _channel(given: Mapping[str, Any]) -> str | None:
    """A post may name a channel by id or by name."""
    wanted = str(given.get("channel") or "")
    return next((channel for channel, name in CHANNELS.items() if wanted in {channel, name, f"#{name}"}), None)


def _wrong(given: Mapping[str, Any]) -> Reply | None:
    text, blocks = str(given.get("text") or ""), list(given.get("blocks") or [])
    found = problems(text, blocks)
    if found:
        code = "no_text" if not text and not blocks else "msg_too_long" if found[0].startswith("text ") else "invalid_blocks"
        return Reply({"ok": False, "error": code, "errors": found})
    metadata = given.get("metadata")
    if metadata and (not isinstance(metadata, dict) or not {"event_type", "event_payload"} <= set(metadata)
                     or len(str(metadata)) > _METADATA):  # fmt: skip
        return _no("invalid_metadata_format")
    return None


def _no(error: str) -> Reply:
    return Reply({"ok": False, "error": error})


def _limited(wait: float) -> Reply:
    return Reply({"ok": False, "error": "ratelimited"}, 429, math.ceil(wait))
