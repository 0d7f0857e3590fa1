"""Streams of gRPC over ASGI, which take no thread: health watches and reflection. Called by `app.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2

from decider.errors import DeciderError
from decider.server.fast.messages import START, Messages, Send, send_end, send_piece, send_status
from decider.server.rpc import UNPARSABLE, to_status
from decider.server.web.frames import only_message
from decider.server.web.streams import WebStream

_UNPARSABLE = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=UNPARSABLE)


class _Wanted(NamedTuple):
    """What is done with the next request."""

    then: Callable[[bytes], object]


class FastStream(WebStream):
    """Made in the loop. encoding: of packed requests. most: bytes of one."""

    def __init__(
        self, caller: str, check: Callable[[], object], requests: Messages, encoding: bytes, most: int
    ) -> None:
        super().__init__(caller, check)
        self._requests, self._encoding, self._most = requests, encoding, most

    def receive(self, then: Callable[[bytes], object]) -> None:
        """The next request; where no more come, the stream ends."""
        self._put(_Wanted(then))

    async def run(self, send: Send) -> None:
        """Do what is put, until the end."""
        started = False
        reading: asyncio.Task[None] | None = None
        try:
            while not isinstance(item := await self._queue.get(), status_pb2.Status):
                if isinstance(item, _Wanted):
                    reading = asyncio.create_task(self._read(item.then))
                    continue
                if not started:
                    await send(START)
                    started = True
                await send_piece(send, item.content)
                item.then()
            await (send_end if started else send_status)(send, item)
        finally:
            if reading is not None:
                reading.cancel()
            self._tell_end()

    async def _read(self, then: Callable[[bytes], object]) -> None:
        try:
            content = await self._requests.next()
            if content is None:
                self.end()
            else:
                then(only_message(content, self._encoding, self._most))
        except DecodeError:
            self.end_with(_UNPARSABLE)
        except DeciderError as error:
            self.end_with(to_status(error))
