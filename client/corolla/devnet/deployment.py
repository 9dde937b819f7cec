"""A devnet on a chain that somebody else runs: contracts, a model, funded accounts and the network file, and no more.

It is what containers need that start as separate services (see `deploy/compose.yaml`). Doing it again on a chain that
has it all changes nothing; on an empty chain the same accounts are funded anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corolla.devnet.devnet import WITH_JURY
from corolla.devnet.funding import new_account, publish, write_password
from corolla_core.chain.deploy import deploy_all
from corolla_core.chain.devnet_keys import devnet_signer
from corolla_core.chain.network import Network
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.swarm.dht import ensure_identity

NAME = "devnet"


@dataclass(frozen=True, slots=True)
class Deployment:
    """`bootstrap` is the address that others join through, such as `/dns4/bootstrap/tcp/31400`; whoever listens there
    must have the identity in `<home>/networks/bootstrap.key`."""

    rpc_url: str
    model: str
    accounts: Sequence[str]
    bootstrap: str


async def deploy(plan: Deployment, *, home: Path, progress: Callable[[str], None] = lambda _: None) -> Network:
    """Raises ChainUnreachable when the chain does not come up within a minute, ChainError, ModelError."""
    networks, keys = home / "networks", home / "keys"
    password, peer = _prepare(networks, keys)
    bootstrap = (f"{plan.bootstrap}/p2p/{peer}",)
    known = _known(networks / f"{NAME}.json")
    if known is not None:
        known = dataclasses.replace(known, rpc_url=plan.rpc_url, bootstrap=bootstrap)
        if await _stands(known):
            known.save(networks)
            return known
    progress("deploying the contracts")
    first = devnet_signer(0)
    deployed = await deploy_all(plan.rpc_url, first, name=NAME, terms=WITH_JURY)
    network = dataclasses.replace(deployed, bootstrap=bootstrap)
    async with await Chain.connect(network) as chain:
        faucet = TransactionSender(chain, first)
        progress("publishing the model")
        await publish(faucet, plan.model)
        progress("funding the accounts")
        for name in plan.accounts:
            await new_account(faucet, keys / f"{name}.json", password)
    network.save(networks)  # last: where it lies, all of it is done
    return network


def _prepare(networks: Path, keys: Path) -> tuple[str, str]:
    """The accounts' password and the bootstrap peer's id, made at need."""
    identity, password = networks / "bootstrap.key", keys / "password"
    peer = ensure_identity(identity)
    keys.mkdir(parents=True, exist_ok=True)
    if not password.exists():
        write_password(password)
    return password.read_text().strip(), str(peer.to_base58())


def _known(file: Path) -> Network | None:
    return Network.load(file) if file.exists() else None


async def _stands(known: Network) -> bool:
    """Whether the chain still has the contracts."""
    async with await Chain.connect(known) as chain:
        return await chain.request("eth_getCode", known.escrow, "latest") not in ("0x", None)
