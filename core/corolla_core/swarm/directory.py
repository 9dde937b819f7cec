"""Who serves what: announcements in a DHT that every node is part of."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from corolla_core.protocol.errors import InvalidInput, NetworkError
from corolla_core.protocol.ids import Address, ModelRoot, PeerId, address_bytes
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import Announcement, NodeState, SignedAnnouncement
from corolla_core.swarm.daemon import Daemon

if TYPE_CHECKING:
    from hivemind.p2p import P2P

    from corolla_core.swarm.dht import StrictNode

_LOCAL = ("/ip4/127.0.0.1/tcp/0",)


class Directory:
    """Our part of the DHT, on this event loop, with a p2pd child that dies with us."""

    def __init__(self, *, network: str, daemon: Daemon, p2p: P2P, node: StrictNode, bootstrap: Sequence[str]) -> None:
        """Use `Directory.start`."""
        self.network = network
        self.p2p = p2p
        self._daemon = daemon
        self._node = node
        self._bootstrap = tuple(bootstrap)
        self._addresses: list[str] = []
        self._client_mode = bool(node.protocol.client_mode)

    @classmethod
    async def start(
        cls,
        *,
        network: str,
        bootstrap: Sequence[str] = (),
        identity_path: Path | None = None,
        listen: Sequence[str] | None = None,
        client_mode: bool = False,
    ) -> Directory:
        """Join the DHT of `network` through the `bootstrap` multiaddrs (none: start a new one).

        `identity_path` holds the libp2p key, created at need; without it the peer id is new each time. `listen` are
        multiaddrs, by default a free loopback port, or nothing in `client_mode`, where we look up but store for
        nobody. Raises NetworkError when no bootstrap peer answers, ConfigError for a multiaddr that is none.
        """
        # hivemind takes seconds to import: only who joins a swarm pays, and nothing else on the loop waits for it.
        await asyncio.to_thread(importlib.import_module, "corolla_core.swarm.dht")
        from corolla_core.swarm import dht

        peers = {maddr: dht.peer_of(maddr) for maddr in bootstrap}
        if identity_path is not None:
            me = await asyncio.to_thread(dht.ensure_identity, identity_path)
            bootstrap = [maddr for maddr, peer in peers.items() if peer != me]
        if listen is None:
            listen = () if client_mode else _LOCAL
        daemon = await Daemon.start(
            bootstrap=bootstrap, listen=listen, identity_path=identity_path, client_mode=client_mode
        )
        try:
            p2p, node = await dht.join(daemon.control, network=network, bootstrap=bootstrap, client_mode=client_mode)
            self = cls(network=network, daemon=daemon, p2p=p2p, node=node, bootstrap=bootstrap)
            if listen:
                self._addresses = [str(maddr) for maddr in await p2p.get_visible_maddrs(latest=True)]
        except BaseException:
            await daemon.stop()
            raise
        return self

    @property
    def peer_id(self) -> PeerId:
        """Our libp2p peer id in base58."""
        return PeerId(self.p2p.peer_id.to_base58())

    @property
    def daemon_pid(self) -> int:
        """The process id of our p2pd."""
        return self._daemon.pid

    async def ended(self) -> None:
        """Returns when our p2pd has ended: this directory is of no more use, only to be stopped."""
        await self._daemon.ended()

    def addresses(self) -> list[str]:
        """The multiaddrs others can bootstrap from; empty for one that does not listen."""
        return list(self._addresses)

    async def announce(self, signed: SignedAnnouncement) -> None:
        """Store a record until it expires; a newer one (later `expires_at`) of the same account replaces it.

        Raises InvalidInput for another network's announcement, NetworkError when no peer took it or p2pd is gone.
        """
        from corolla_core.swarm import dht

        self._check_running()
        announcement = signed.announcement
        if announcement.network != self.network:
            raise InvalidInput(f"this directory is of {self.network}, not {announcement.network}")
        shard = dht.shard_of(announcement.account)
        keys = dht.key_names(self.network, announcement.model_root, announcement.span, [shard])
        await dht.rejoin(self._node, self._bootstrap)
        stored = await self._node.store_many(
            keys,
            [signed.encode()] * len(keys),
            dht.expiration(announcement.expires_at),
            subkeys=[address_bytes(announcement.account)] * len(keys),
            exclude_self=self._client_mode,
        )
        if not all(stored.values()):
            missed = sum(not ok for ok in stored.values())
            raise NetworkError(f"{missed} of {len(keys)} keys of the announcement were taken by no peer")

    async def withdraw(self, last: Announcement, signer: Signer) -> None:
        """Replace the account's announcement by one that says OFFLINE, which no lookup shows. Raises as `announce`."""
        gone = dataclasses.replace(
            last, state=NodeState.OFFLINE, issued_at=last.issued_at + 1, expires_at=last.expires_at + 1
        )
        await self.announce(gone.sign(signer))

    async def lookup(self, model_root: ModelRoot, num_blocks: int, *, withdrawn: bool = False) -> list[Announcement]:
        """Who serves blocks of the model now: valid, unexpired, the newest one of each account, by span; not OFFLINE,
        unless those that have `withdrawn` are asked for as well.

        Raises NetworkError when p2pd is gone.
        """
        from corolla_core.swarm import dht

        self._check_running()
        await dht.rejoin(self._node, self._bootstrap)
        keys = dht.key_names(self.network, model_root, Span(0, num_blocks))
        found = await self._node.get_many(keys, sufficient_expiration_time=math.inf)
        records = (record for value in found.values() if value is not None for record in value.value.values())
        return newest(
            (_opened(record.value, dht.opened) for record in records),
            model_root=model_root,
            network=self.network,
            now=dht.now_ms(),
            withdrawn=withdrawn,
        )

    async def stop(self) -> None:
        """Leave the DHT and end p2pd. Safe to call twice."""
        if self._node.is_alive and self._daemon.running:
            await self._node.shutdown()
        await self.p2p.shutdown()
        await self._daemon.stop()

    def _check_running(self) -> None:
        if not self._daemon.running:
            raise NetworkError("p2pd has ended")


def newest(
    records: Iterable[SignedAnnouncement | None],
    *,
    model_root: ModelRoot,
    network: str,
    now: int,
    withdrawn: bool = False,
) -> list[Announcement]:
    """The freshest announcement of each account, sorted by span and account; those OFFLINE left out, unless the
    `withdrawn` are wanted too."""
    latest: dict[Address, Announcement] = {}
    for signed in records:
        if signed is None or not signed.fresh(now):
            continue
        announcement = signed.announcement
        if announcement.model_root != model_root or announcement.network != network:
            continue
        known = latest.get(announcement.account)
        if known is None or (announcement.issued_at, announcement.expires_at) > (known.issued_at, known.expires_at):
            latest[announcement.account] = announcement
    wanted = (a for a in latest.values() if withdrawn or a.state is not NodeState.OFFLINE)
    return sorted(wanted, key=lambda a: (a.span, a.account))


def _opened(raw: object, opened: Callable[[bytes], SignedAnnouncement]) -> SignedAnnouncement | None:
    # The validator has seen it already; this is what makes a lookup safe by itself.
    if not isinstance(raw, bytes):
        return None
    try:
        return opened(raw)
    except InvalidInput:
        return None
