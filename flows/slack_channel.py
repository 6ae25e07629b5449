"""One Slack channel, through slack_sdk: post, edit, and find again what was posted. Errors are translated here only.

The client never tries again by itself (`retry_handlers=[]`): its default handler posts a second message after a dropped
connection. Whoever gets `SlackTrouble` with `unclear` looks first (`find`, `read`) what became of the call.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.error import URLError

from flows.slack_limits import Message

if TYPE_CHECKING:
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError

TIMEOUT = 30.0
"""Seconds for one call: an answer that takes 10 s is slow, and still an answer."""
AGAIN = 1.0
FIXABLE = 15.0
"""Seconds until the next try after a refusal that a person can lift (the app is not in the channel, a wrong token)."""
PAGES = 50
"""How far back the channel is read for a card: 10 000 messages since the run began."""
Kind = Literal["failover_card", "failover_detail"]
CARD: Final = "failover_card"
DETAIL: Final = "failover_detail"
_ID = re.compile(r"[CGD][A-Z0-9]{7,}")
_TOO_MUCH = {"invalid_blocks", "invalid_blocks_format", "msg_too_long", "msg_blocks_too_long", "no_text", "invalid_metadata_format"}
_PASSING = {"internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"}


class SlackTrouble(Exception):
    """Slack did not do it, or did not say so."""

    def __init__(self, text: str, *, wait: float = AGAIN, unclear: bool = False, code: str = "") -> None:
        super().__init__(text)
        self.wait = wait
        """Seconds until it is worth trying again."""
        self.unclear = unclear
        """It may have been done all the same."""
        self.code = code

    @property
    def too_much(self) -> bool:
        """Slack does not take this message as it is."""
        return self.code in _TOO_MUCH


@dataclass(frozen=True)
class Label:
    """The metadata of a message of ours: how any process finds out what was posted already."""

    kind: Kind
    execution: str
    number: int
    """The last event that it tells."""

    def as_metadata(self) -> dict[str, Any]:
        """In Slack's form."""
        return {"event_type": self.kind, "event_payload": {"execution": self.execution, "number": self.number}}


@dataclass(frozen=True)
class Posted:
    """What Slack holds of an execution: up to which event the card and the thread tell."""

    card: int
    thread: int


class SlackChannel:
    """A channel as the bot of one token sees it. The token stays inside the client and is in no text of ours."""

    def __init__(self, name: str, token: str, url: str | None = None, timeout: float = TIMEOUT) -> None:
        self.name = name
        self._token, self._url, self._timeout = token, url, timeout
        self._id = name if _ID.fullmatch(name) else None
        self._made: WebClient | None = None

    def __repr__(self) -> str:
        return f"SlackChannel({self.name!r})"

    def post(self, message: Message, label: Label, thread: str | None = None) -> str:
        """Post a message, into a thread if one is named; give its ts."""
        answer = self._call(
            lambda: self._client.chat_postMessage(
                channel=self._id or self.name, text=message.text, blocks=list(message.blocks) or None,
                metadata=label.as_metadata(), thread_ts=thread, unfurl_links=False, unfurl_media=False,
            ), writes=True,
        )  # fmt: skip
        self._id = str(answer["channel"])
        return str(answer["ts"])

    def edit(self, ts: str, message: Message, label: Label) -> None:
        """Replace a message."""
        channel = self._identify()
        self._call(
            lambda: self._client.chat_update(
                channel=channel, ts=ts, text=message.text, blocks=list(message.blocks), metadata=label.as_metadata()
            ), writes=True,
        )  # fmt: skip

    def find(self, execution: str, since: datetime) -> str | None:
        """The ts of an execution's card, searched from `since` on; None when it was never posted."""
        channel = self._identify()
        oldest = f"{since.timestamp() - 60:.6f}"  # Slack's clock may differ from ours
        found = [
            str(one["ts"])
            for one in self._pages(lambda cursor: self._client.conversations_history(
                channel=channel, oldest=oldest, limit=200, include_all_metadata=True, cursor=cursor))
            if _number(one, CARD, execution) is not None
        ]  # fmt: skip
        return min(found, default=None)

    def read(self, ts: str, execution: str) -> Posted | None:
        """What the card and its thread tell; None when the card is gone."""
        channel = self._identify()
        card, thread = None, 0
        try:
            for one in self._pages(lambda cursor: self._client.conversations_replies(
                    channel=channel, ts=ts, limit=200, include_all_metadata=True, cursor=cursor)):  # fmt: skip
                thread = max(thread, _number(one, DETAIL, execution) or 0)
                card = card if card is not None else _number(one, CARD, execution)
        except SlackTrouble as trouble:
            if trouble.code == "thread_not_found":
                return None
            raise
        return Posted(card, thread) if card is not None else None

    # -- the wire

    @property
    def _client(self) -> WebClient:
        if self._made is None:
            import ssl

            from slack_sdk import WebClient

            self._made = WebClient(
                token=self._token, base_url=(self._url or WebClient.BASE_URL).rstrip("/") + "/", timeout=self._timeout,  # type: ignore[arg-type]  # seconds, and parts of one
                ssl=ssl.create_default_context(),  # once: else the certificates are read anew for every call
                retry_handlers=[],
            )  # fmt: skip
        return self._made

    def _identify(self) -> str:
        """The channel's id, which edits and searches need; looked up by name once."""
        if self._id is None:
            wanted = self.name.lstrip("#").casefold()
            pages = self._pages(lambda cursor: self._client.conversations_list(
                types="public_channel,private_channel", exclude_archived=True, limit=1000, cursor=cursor), "channels")  # fmt: skip
            self._id = next((str(one["id"]) for one in pages if str(one.get("name", "")).casefold() == wanted), None)
        if self._id is None:
            raise SlackTrouble(f"there is no channel {self.name} that the app can see; invite it", wait=FIXABLE, code="channel_not_found")
        return self._id

    def _pages(self, ask: Callable[[str | None], Any], key: str = "messages") -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        for _ in range(PAGES):
            answer = self._call(lambda at=cursor: ask(at))  # type: ignore[misc]
            yield from answer.get(key) or ()
            cursor = (answer.get("response_metadata") or {}).get("next_cursor") or None
            if cursor is None:
                return

    def _call(self, ask: Callable[[], Any], *, writes: bool = False) -> Any:
        from slack_sdk.errors import SlackApiError, SlackClientError

        try:
            return ask()
        except SlackApiError as error:
            raise _refused(error, writes=writes) from None
        except URLError as error:
            refused = isinstance(error.reason, ConnectionRefusedError)  # nothing left us
            raise SlackTrouble(f"does not answer ({_word(error.reason)})", unclear=writes and not refused) from None
        except (OSError, http.client.HTTPException, SlackClientError, ValueError) as error:  # TimeoutError is bare
            raise SlackTrouble(f"did not answer ({_word(error)})", unclear=writes) from None


def _refused(error: SlackApiError, *, writes: bool) -> SlackTrouble:
    answer = error.response
    code = str(answer.get("error") or "") if isinstance(answer.data, dict) else ""
    headers = {str(name).lower(): value for name, value in (answer.headers or {}).items()}
    if answer.status_code == 429 or code in {"ratelimited", "rate_limited"}:
        return SlackTrouble("is limiting our rate", wait=_seconds(headers.get("retry-after")), code="ratelimited")
    if answer.status_code >= 500 or code in _PASSING or not code:
        return SlackTrouble(f"has trouble ({code or answer.status_code})", unclear=writes, code=code)
    needed = f", needs {answer.get('needed')}" if code == "missing_scope" else ""
    return SlackTrouble(f"refuses ({code}{needed})", wait=AGAIN if code in _TOO_MUCH else FIXABLE, code=code)


def _seconds(value: Any) -> float:
    """Retry-After; a header may be a list, and may be nonsense."""
    try:
        return min(max(float(value[0] if isinstance(value, list) else value), AGAIN), 300.0)
    except (TypeError, ValueError, IndexError):
        return 30.0


def _word(error: object) -> str:
    """What kind of trouble, without the address or anything else that was sent."""
    return type(error).__name__ if isinstance(error, BaseException) else str(error)[:80]


def _number(message: dict[str, Any], kind: str, execution: str) -> int | None:
    """The event number in a message's metadata; None when it is not of this kind and execution."""
    metadata = message.get("metadata") or {}
    payload = metadata.get("event_payload") or {}
    if metadata.get("event_type") != kind or payload.get("execution") != execution:
        return None
    try:
        return int(payload.get("number", 0))
    except (TypeError, ValueError):
        return 0
