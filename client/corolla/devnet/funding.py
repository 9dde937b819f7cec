"""What a devnet's first account gives out: accounts with money, and the model that nodes serve."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from corolla_core.chain.account import Call
from corolla_core.chain.keystore import create_account, load_account
from corolla_core.chain.models import Models
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.ids import Address
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import ONE_NECTAR, Nectar, Wei

FUNDS = Nectar(1000 * ONE_NECTAR)
GAS = Wei(10**18)


@dataclass(frozen=True, slots=True)
class Funded:
    """An account with money on the devnet, and the file its key is in."""

    signer: Signer
    keystore: Path


async def new_account(
    faucet: TransactionSender, keystore: Path, password: str, *, funds: Nectar = FUNDS, gas: Wei = GAS
) -> Funded:
    """The account in `keystore`, made at need, with tokens and gas money."""
    signer = _signer(keystore, password)
    await fund(faucet, signer.address, funds=funds, gas=gas)
    return Funded(signer, keystore)


async def fund(faucet: TransactionSender, account: Address, *, funds: Nectar = FUNDS, gas: Wei = GAS) -> None:
    """Tokens, which a devnet's deployer may mint, and gas money. Raises ChainError."""
    await faucet.send(Call(account, b"", value=gas, about="gas money"))
    await Token(faucet.chain, faucet).mint(account, funds)


def _signer(keystore: Path, password: str) -> Signer:
    if not keystore.exists():
        # Its money is worth nothing, so the key is made quick to open rather than hard to guess.
        create_account(keystore, password, kdf="pbkdf2", iterations=1000)
    return load_account(keystore, password)


async def publish(faucet: TransactionSender, model: str) -> None:
    """Register the checkpoint `model`, for nodes of class fp32 and int8. Raises ModelError, ChainError."""
    manifest = Manifest.beside(open_checkpoint(model))
    classes = [NumericClass.FP32, NumericClass.INT8]
    await Models(faucet.chain, faucet).publish(manifest.name, manifest.root, manifest.block_roots, classes)


def write_password(path: Path) -> None:
    """A fresh one, for the owner's eyes only. Raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(16) + "\n")
