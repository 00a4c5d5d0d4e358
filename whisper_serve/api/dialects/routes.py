"""`WS /stream/voicestream` and `WS /stream/{client_id}`."""

from __future__ import annotations

import logging
import re

from fastapi import APIRouter, WebSocket

from whisper_serve.api.admission import Admission
from whisper_serve.api.connection import Connection, Dialect, deny, serve
from whisper_serve.api.dialects.blobs import BlobPeer
from whisper_serve.api.dialects.voicestream import VoiceStreamPeer
from whisper_serve.api.live import Timing
from whisper_serve.api.peer import Peer
from whisper_serve.api.services import Services
from whisper_serve.errors import InvalidParameter

logger = logging.getLogger(__name__)

CLIENT_ID = re.compile(r"[A-Za-z0-9._~:@-]{1,128}")


def dialects_router(
    services: Services, admission: Admission, *, timing: Timing | None = None
) -> APIRouter:
    timing = timing or Timing()
    router = APIRouter()

    @router.websocket("/stream/voicestream")
    async def voicestream(socket: WebSocket) -> None:
        dialect = Dialect(VoiceStreamPeer)
        await serve(socket, dialect, services=services, admission=admission, timing=timing)

    # Behind the other: it takes every name.
    @router.websocket("/stream/{client_id}")
    async def blobs(socket: WebSocket, client_id: str) -> None:
        if not CLIENT_ID.fullmatch(client_id):
            reason = "1 to 128 letters, digits or any of . _ ~ : @ -"
            await deny(socket, InvalidParameter("client_id", reason))
            return

        def peer(connection: Connection) -> Peer:
            logger.info("the stream of client %s begins", client_id)
            return BlobPeer(connection)

        dialect = Dialect(peer)
        await serve(socket, dialect, services=services, admission=admission, timing=timing)

    return router
