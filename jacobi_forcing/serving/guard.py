"""What stands before the application: sizes, keys, counting. Plain ASGI, so that streams flow."""

import hmac
from collections.abc import Callable, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from jacobi_forcing.serving.replies import error_body

_OPEN = ("/", "/health")  # what needs no key: the page asks for it and sends it along


class Guard:
    """Refuses what should not reach the application.

    Args:
        app: The application behind it.
        api_key: What clients must send as `Authorization: Bearer KEY`; none is needed if empty.
        max_body_bytes: Largest body, whether its length is declared or not.
        hosts: Names under which this server may be asked, as `Host` says them; any where there are
            none. A page from elsewhere whose name is made to point here is told apart by it.
        count: Called with the status of every reply.
    """

    def __init__(
        self,
        app: Any,
        *,
        api_key: str,
        max_body_bytes: int,
        hosts: Sequence[str],
        count: Callable[[int], None],
    ):
        self.app = app
        self.api_key = api_key.encode()
        self.max_body_bytes = max_body_bytes
        self.hosts = [host.lower().encode() for host in hosts]
        self.count = count

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def counted(message: dict) -> None:
            if message["type"] == "http.response.start":
                self.count(message["status"])
            await send(message)

        if not self._is_meant(scope):
            text = "this server is asked under a name that is not its own; see --api-key."
            return await _refuse(counted, 403, text, "unknown_host")
        if not self._may_ask(scope):
            text = "send the server's key as `Authorization: Bearer KEY`."
            return await _refuse(counted, 401, text, "invalid_api_key")
        num_bytes = 0

        async def limited() -> dict:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self.max_body_bytes:
                text = f"the body is larger than {self.max_body_bytes} bytes."
                raise HTTPException(413, text, {"Connection": "close"})  # the rest is not read
            return message

        return await self.app(scope, limited, counted)

    def _is_meant(self, scope: dict) -> bool:
        host = dict(scope["headers"]).get(b"host", b"").lower()
        name = host if host.endswith(b"]") else host.rpartition(b":")[0] or host
        return not self.hosts or name in self.hosts

    def _may_ask(self, scope: dict) -> bool:
        is_open = scope["path"] in _OPEN or scope["method"] == "OPTIONS"
        if not self.api_key or is_open:
            return True
        headers = dict(scope["headers"])
        kind, _, key = headers.get(b"authorization", b"").partition(b" ")
        # In constant time: how long a comparison takes must not tell how much of a key is right.
        return hmac.compare_digest(key.strip(), self.api_key) and kind.lower() == b"bearer"


async def _refuse(send: Callable, status: int, text: str, code: str) -> None:
    error = error_body(text, kind="invalid_request_error", code=code)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    reply = JSONResponse(error, status_code=status, headers=headers)
    for message in (
        {"type": "http.response.start", "status": status, "headers": reply.raw_headers},
        {"type": "http.response.body", "body": reply.body},
    ):
        await send(message)
