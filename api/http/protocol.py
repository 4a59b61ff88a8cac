"""HTTP/1.1 as uvicorn speaks it, but for what loses the body or the answer of a request."""

import asyncio
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_SECONDS = 2.0  # how long what a client still sends is thrown away, so that it comes to read its answer
_OFFERS = frozenset({b"upgrade", b"http2-settings"})  # RFC 9113 and 7540: a server may go on in HTTP/1.1


class Protocol(HttpToolsProtocol):
    """One connection.

    The parser ends where a request offers to go on in another protocol, as Java's HTTP client and ``curl --http2`` do
    with each, and does not read the body that comes with it. We accept no offer (RFC 9110 §7.8 lets us), so such a
    request is read again without it.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; whoever closes the connection before a body is over waits for the client."""
        super().connection_made(cast(asyncio.Transport, _Lingering(self, cast(asyncio.Transport, transport))))

    def data_received(self, data: bytes) -> None:
        """Read on, through every offer."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        try:
            while data:
                data = self._read(data)
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")

    def _read(self, data: bytes) -> bytes:
        """Feed the parser; what it has to be given next after an offer, else nothing."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            method = self.parser.get_method()
            if method == b"CONNECT":  # which is no offer: there is no way on but through us
                raise httptools.HttpParserInvalidMethodError("CONNECT") from offer
            version = self.parser.get_http_version().encode()
            head = [b"%s %s HTTP/%s" % (method, self.url, version), *_without_offers(self.headers)]
            self.parser = httptools.HttpRequestParser(self)
            return b"\r\n".join([*head, b"", b""]) + data[offer.args[0] :]
        return b""

    def _should_upgrade(self) -> bool:
        """Do nothing about a request that offers something, until it is read again."""
        return True


def _without_offers(headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    lines = []
    for name, value in headers:
        if name == b"connection":
            kept = [token for token in value.split(b",") if token.strip().lower() not in _OFFERS]
            lines.append(name + b": " + b",".join(kept))
        elif name not in _OFFERS:
            lines.append(name + b": " + value)
    return lines


class _Lingering:
    """A transport that, closed while a body is still being sent, says that nothing more comes and reads on for a while.

    To close at once would reset the connection, and a client that is still writing would not get to read why
    (RFC 9112 §9.6).
    """

    def __init__(self, protocol: Protocol, transport: asyncio.Transport) -> None:
        self._protocol, self._transport = protocol, transport
        self._is_lingering = False
        self.write = transport.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether the connection ends: nothing more is read from it."""
        return self._is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """Close; a client that is in the middle of a body has some time to notice."""
        cycle = self._protocol.cycle
        if self.is_closing() or cycle is None or not cycle.more_body or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._is_lingering = True
        self._transport.write_eof()
        self._protocol.flow.resume_reading()
        self._protocol.loop.call_later(LINGER_SECONDS, self._transport.close)
