"""Which chain, and which contracts on it, make up one Corolla network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from corolla_core.protocol.eip712 import Domain
from corolla_core.protocol.errors import ConfigError, InvalidInput
from corolla_core.protocol.ids import ZERO_ADDRESS, Address, address
from corolla_core.protocol.voucher import escrow_domain

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")


@dataclass(frozen=True, slots=True)
class Network:
    """Everything a machine must know to take part. Contracts are checksummed addresses; `bootstrap` are multiaddrs.

    `faults`, `disputes` (the jury), `reputation`, `governor` and `cooperatives` (their factory) are the zero address
    on a network without them. `operators` is the consortium's registry of whom it knows, and makes the
    swarm a private one.
    """

    name: str
    chain_id: int
    rpc_url: str
    token: Address
    registry: Address
    models: Address
    escrow: Address
    timelock: Address | None = None
    bootstrap: tuple[str, ...] = ()
    faults: Address = ZERO_ADDRESS
    disputes: Address = ZERO_ADDRESS
    reputation: Address = ZERO_ADDRESS
    governor: Address = ZERO_ADDRESS
    cooperatives: Address = ZERO_ADDRESS
    operators: Address = ZERO_ADDRESS

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"a network's name is lower-case letters, digits and dashes, not {self.name!r:.80}")
        if not 0 < self.chain_id < 2**63:
            raise ConfigError(f"not a chain id: {self.chain_id}")
        if not self.rpc_url.startswith(("http://", "https://")):
            raise ConfigError("rpc_url is an http:// or https:// address")
        core = (self.token, self.registry, self.models, self.escrow, self.timelock)
        later = (self.faults, self.disputes, self.reputation, self.governor, self.cooperatives, self.operators)
        for contract in (*core, *later):
            if contract is not None and contract != _checked(contract):
                raise ConfigError(f"{contract} is not checksummed")

    @property
    def has_reputation(self) -> bool:
        return self.reputation != ZERO_ADDRESS

    @property
    def is_private(self) -> bool:
        """Whether only accounts that a consortium attests take part."""
        return self.operators != ZERO_ADDRESS

    @property
    def domain(self) -> Domain:
        """What vouchers of this network are signed under."""
        return escrow_domain(self.chain_id, self.escrow)

    def save(self, folder: Path) -> Path:
        """Write `folder/<name>.json`, replacing what was there in one step; returns the path."""
        path = folder / f"{self.name}.json"
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".json.new")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2))
        temporary.replace(path)
        return path

    @classmethod
    def load(cls, path: Path) -> Network:
        """Raises ConfigError when the file is missing or wrong."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from None
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{path} does not describe a network: {error}") from None


def resolve_network(name_or_path: str, *, folder: Path) -> Network:
    """The network a user means: a path to its file, or the name of one saved in `folder` (`<home>/networks`)."""
    if "/" in name_or_path or name_or_path.endswith(".json"):
        return Network.load(Path(name_or_path).expanduser())
    if not _NAME.fullmatch(name_or_path):
        raise ConfigError(f"not a network's name: {name_or_path!r:.80}")
    path = folder / f"{name_or_path}.json"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.json"))) or "none"
        raise ConfigError(f"no network {name_or_path!r} in {folder} (known: {known})")
    return Network.load(path)


def _checked(contract: Address) -> Address:
    try:
        return address(contract)
    except InvalidInput as error:
        raise ConfigError(str(error)) from None
