"""Sockets set up for small latency: what was measured is in design/performance.md, "TCP settings matter".

On a WAN also set `sysctl net.ipv4.tcp_slow_start_after_idle=0`: it is the host's, and no process can choose it.
"""

from __future__ import annotations

import asyncio
import socket


def tune(sock: socket.socket) -> None:
    """No Nagle, keepalive, and loss-based congestion control where the host lets us choose: at 50 ms RTT a 16 KiB
    echo took 82 ms with BBR, 51 ms with cubic or reno."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        _set_if_permitted(sock, name, value)
    _set_if_permitted(sock, "TCP_CONGESTION", b"cubic") or _set_if_permitted(sock, "TCP_CONGESTION", b"reno")


def _set_if_permitted(sock: socket.socket, name: str, value: int | bytes) -> bool:
    option = getattr(socket, name, None)
    if option is None:
        return False
    try:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        return False
    return True


async def connect(host: str, port: int) -> socket.socket:
    """A connected, tuned, non-blocking socket; tries every address of `host` in turn. Raises OSError."""
    loop = asyncio.get_running_loop()
    last: OSError = OSError(f"{host} has no address")
    for family, kind, proto, _name, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, proto)
        try:
            sock.setblocking(False)
            tune(sock)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise last


def listen(host: str, port: int, *, backlog: int = 128) -> socket.socket:
    """A listening non-blocking socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.create_server((host, port), family=family, backlog=backlog)
    sock.setblocking(False)
    return sock
