"""Opens a mutually authenticated connection to a peer: TLS 1.3 straight to it, or else a libp2p stream."""

from __future__ import annotations

import asyncio
from typing import Protocol

from corolla_core.protocol.errors import NetworkError, PeerMisbehaved, PeerTimeout, PeerUnreachable
from corolla_core.protocol.ids import Hash32, address
from corolla_core.protocol.signature import Signer
from corolla_core.swarm import tcp
from corolla_core.swarm.certificate import certificate_hash, client_context
from corolla_core.swarm.connection import Connection, Handler, Policy
from corolla_core.swarm.hello import ClientHello
from corolla_core.swarm.messages import Endpoint

_TLS = client_context()
# Resolving a host that another peer made up raises UnicodeError (IDNA, "a..b") or ValueError (NUL) beside OSError.
_NO_WAY = (OSError, ValueError)


class Fallback(Protocol):
    """Another way to a peer, such as `Libp2p`."""

    async def dial(
        self, endpoint: Endpoint, *, identity: Signer, handler: Handler, policy: Policy | None = None
    ) -> Connection:
        """Raises PeerUnreachable, PeerTimeout or PeerMisbehaved."""


async def dial(
    endpoint: Endpoint,
    *,
    identity: Signer,
    handler: Handler,
    timeout: float = 5.0,  # noqa: ASYNC109 -- it bounds each of two ways, which the caller cannot tell apart
    fallback: Fallback | None = None,
    policy: Policy | None = None,
) -> Connection:
    """A connection whose peer has proven to be `endpoint.account` behind the pinned certificate.

    `timeout` bounds each way in seconds. The fallback is tried only where no TCP connection can be made: a peer that
    answers with the wrong certificate or account is refused. Raises PeerUnreachable (also for a host that can be
    none), PeerTimeout or PeerMisbehaved.
    """
    peer = address(endpoint.account)
    try:
        async with asyncio.timeout(timeout):
            return await _dial_tls(endpoint, identity=identity, handler=handler, policy=policy)
    except TimeoutError:
        unreachable: NetworkError = PeerTimeout(f"no connection to {_where(endpoint)} in {timeout} s", peer=peer)
    except _NO_WAY as error:
        unreachable = PeerUnreachable(f"{_where(endpoint)}: {error}", peer=peer)
    except (PeerUnreachable, PeerTimeout) as error:
        unreachable = error
    if fallback is None or not endpoint.peer_id:
        raise unreachable
    try:
        async with asyncio.timeout(timeout):
            return await fallback.dial(endpoint, identity=identity, handler=handler, policy=policy)
    except TimeoutError:
        raise PeerTimeout(f"{unreachable.message}; nor over libp2p", peer=peer) from None
    except _NO_WAY as error:
        raise PeerUnreachable(f"{unreachable.message}; nor over libp2p: {error}", peer=peer) from None


async def _dial_tls(endpoint: Endpoint, *, identity: Signer, handler: Handler, policy: Policy | None) -> Connection:
    peer = address(endpoint.account)
    binding = Hash32(endpoint.cert_hash)

    def check_channel(transport: asyncio.Transport) -> None:
        der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if der is None or certificate_hash(der) != binding:
            raise PeerMisbehaved(f"{_where(endpoint)} shows another certificate than announced", peer=peer)

    hello = ClientHello(identity, binding=binding, expected=peer)
    conn = Connection(hello, handler, policy=policy, expected=peer, check_channel=check_channel)
    try:
        sock = await tcp.connect(endpoint.host, endpoint.port)
        # From here on the socket is the loop's, which closes it when the handshake fails.
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: conn, sock=sock, ssl=_TLS, server_hostname="corolla")
        await conn.authenticated()
    except BaseException:
        conn.drop(PeerUnreachable("the dial was given up", peer=peer))
        raise
    return conn


def _where(endpoint: Endpoint) -> str:
    return f"{endpoint.host}:{endpoint.port}"
