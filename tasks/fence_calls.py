"""HTTP calls to whoever can stop a node or knows of it."""

from __future__ import annotations

from typing import Any

from tasks.clients import Clients
from tasks.errors import ActionFailed


def call(url: str, method: str, clients: Clients) -> Any:
    """Make one call, on a connection of its own; raises ActionFailed unless it succeeded."""
    import httpx

    try:
        answer = clients.http().request(method, url, headers={"Connection": "close"})
    except httpx.HTTPError as error:  # perhaps it was done and only the answer is lost: looking again tells
        what = str(error) or type(error).__name__
        raise ActionFailed(f"{method} {url} got no answer: {what}", attempted=f"{method} {url}", retry=True) from None
    if answer.is_success:
        return answer
    raise ActionFailed(
        f"{method} {url} was answered HTTP {answer.status_code}",
        attempted=f"{method} {url}",
        code=str(answer.status_code),
        retry=answer.status_code in (409, 429) or answer.status_code >= 500,
    )
