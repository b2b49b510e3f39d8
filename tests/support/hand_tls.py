"""TLS by hand, from the standard library alone: the test decides which bytes leave in which TCP segment."""

from __future__ import annotations

import asyncio
import ssl

PATIENCE = 10.0


class HandTls:
    """An `ssl.SSLObject` over a plain asyncio reader and writer. A client when `hostname` is given."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        context: ssl.SSLContext,
        hostname: str | None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=hostname is None,
            server_hostname=hostname,
            session=session,
        )

    @classmethod
    async def connect(
        cls, port: int, context: ssl.SSLContext, hostname: str, session: ssl.SSLSession | None = None
    ) -> HandTls:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        return cls(reader, writer, context, hostname, session)

    async def shake_hands(self, *, keep_last_flight: bool = False) -> None:
        """Until our side is done; `keep_last_flight` leaves what is to be sent then for the next `send`."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.send()
                await self._receive()
            else:
                break
        if not keep_last_flight:
            await self.send()

    async def send(self, *plaintexts: bytes) -> None:
        """Everything that waits, then each plaintext as a record of its own; all in one write to the socket."""
        for plaintext in plaintexts:
            self.tls.write(plaintext)
        await self.send_raw(self.outgoing.read())

    async def send_raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read(self, at_least: int) -> bytes:
        """Plaintext until there are `at_least` bytes of it, or the peer's end."""
        got = bytearray()
        while len(got) < at_least:
            try:
                piece = self.tls.read(65536)
            except ssl.SSLWantReadError:
                if not await self._receive():
                    break
                continue
            except ssl.SSLZeroReturnError:
                break
            if not piece:
                break
            got += piece
        return bytes(got)

    def close(self) -> None:
        """FIN without close_notify."""
        self.writer.close()

    async def _receive(self) -> bool:
        async with asyncio.timeout(PATIENCE):
            data = await self.reader.read(65536)
        self.incoming.write(data)
        return bool(data)
