"""Listening sockets."""

import socket


def listening(host: str, port: int, *, backlog: int = 1) -> socket.socket:
    """A TCP socket that listens on this port, with the options that uvicorn sets; raises OSError if it cannot."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener
