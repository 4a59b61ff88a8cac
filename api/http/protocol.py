"""uvicorn's HTTP/1.1, corrected in two places where it loses the body or the answer of a request."""

import asyncio
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_SECONDS = 2.0  # for which the rest of a body is read and discarded, so that the client gets its answer
_OFFERS = frozenset({b"upgrade", b"http2-settings"})  # RFC 9113 and 7540: a server may go on in HTTP/1.1


class Protocol(HttpToolsProtocol):
    """One connection.

    A request may offer to upgrade to another protocol; Java's HTTP client and ``curl --http2`` do so in each request.
    The parser stops at such an offer and does not read the request's body. We accept no upgrade (RFC 9110 §7.8 allows
    that), so the request is parsed again without the offer.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wrap the transport, so that closing it before the end of a body waits for the client."""
        super().connection_made(cast(asyncio.Transport, _Lingering(self, cast(asyncio.Transport, transport))))

    def data_received(self, data: bytes) -> None:
        """Parse received bytes; a request with an offer is parsed again without it."""
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
        """Feed the parser; returns the bytes to parse next if there was an offer, else b''."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            method = self.parser.get_method()
            if method == b"CONNECT":  # not an offer: it asks for a tunnel
                raise httptools.HttpParserInvalidMethodError("CONNECT") from offer
            version = self.parser.get_http_version().encode()
            head = [b"%s %s HTTP/%s" % (method, self.url, version), *_without_offers(self.headers)]
            self.parser = httptools.HttpRequestParser(self)
            return b"\r\n".join([*head, b"", b""]) + data[offer.args[0] :]
        return b""

    def _should_upgrade(self) -> bool:
        """Always True: uvicorn then ignores a request with an offer, until `_read` has parsed it again."""
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
    """A transport that, if closed while a body is still arriving, sends EOF at once and reads on for a while.

    To close it at once would reset the connection, and a client that is still sending could not read the answer
    (RFC 9112 §9.6).
    """

    def __init__(self, protocol: Protocol, transport: asyncio.Transport) -> None:
        self._protocol, self._transport = protocol, transport
        self._is_lingering = False
        self.write = transport.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether the connection is being closed: bytes that still arrive are discarded."""
        return self._is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """Close; in the middle of a body only after `LINGER_SECONDS`."""
        cycle = self._protocol.cycle
        if self.is_closing() or cycle is None or not cycle.more_body or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._is_lingering = True
        self._transport.write_eof()
        self._protocol.flow.resume_reading()
        self._protocol.loop.call_later(LINGER_SECONDS, self._transport.close)
