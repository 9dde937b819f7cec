"""The keys everybody knows. They are for devnets, and refused everywhere else."""

from __future__ import annotations

from functools import cache

from eth_account import Account

from corolla_core.protocol.errors import KeystoreError
from corolla_core.protocol.ids import Address
from corolla_core.protocol.signature import Signer

DEVNET_CHAIN_IDS = frozenset({1337, 31337})
#: the mnemonics Hardhat and Anvil, and `ganache --wallet.deterministic`, fund their accounts from
DEVNET_MNEMONIC = "test test test test test test test test test test test junk"
KNOWN_MNEMONICS = (DEVNET_MNEMONIC, "myth like bonus scare over problem client lizard pioneer submit female collect")
ACCOUNTS_EACH = 20


@cache
def devnet_signer(index: int, mnemonic: str = DEVNET_MNEMONIC) -> Signer:
    """Account `m/44'/60'/0'/0/index` of a mnemonic."""
    Account.enable_unaudited_hdwallet_features()
    account = Account.from_mnemonic(mnemonic, account_path=f"m/44'/60'/0'/0/{index}")
    return Signer(bytes(account.key))


@cache
def known_addresses() -> frozenset[Address]:
    """The accounts whose keys are public."""
    return frozenset(devnet_signer(i, words).address for words in KNOWN_MNEMONICS for i in range(ACCOUNTS_EACH))


def refuse_devnet_key(account: Address, chain_id: int) -> None:
    """Raises KeystoreError if `account`'s key is public and the chain is not a devnet."""
    if chain_id not in DEVNET_CHAIN_IDS and account in known_addresses():
        raise KeystoreError(f"{account} is a devnet account whose key everybody has: not on chain {chain_id}")
