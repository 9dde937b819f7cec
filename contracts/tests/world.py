"""A deployed Corolla with people in it. Tests speak through this: open a tranche, sign a voucher, redeem it.

Trees, vouchers and signatures come from corolla_core: every test also checks that Solidity and Python agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import brownie
import pytest
from brownie import accounts, chain
from brownie.network.contract import ContractTx
from eth_account import Account

from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, TrancheId
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.sumtree import Leaf, SumNode, SumTree
from corolla_core.protocol.units import ONE_NECTAR, Nectar
from corolla_core.protocol.voucher import Voucher, escrow_domain

MNEMONIC = "test test test test test test test test test test test junk"
CHAIN_ID = 1337
DAY = 86_400
MIN_STAKE = 100 * ONE_NECTAR
UNBONDING = 20 * DAY
FEE_BPS, LOCK_BPS = 50, 20_000
GRACE, AUDIT_WINDOW, THAW_DELAY = 3_600, 2 * DAY, 7_200
PARAMETERS = (FEE_BPS, LOCK_BPS, GRACE, AUDIT_WINDOW, THAW_DELAY)
UINT128 = 2**128 - 1
_SIGNERS: dict[int, Signer] = {}


def signer(index: int) -> Signer:
    """The key of `accounts[index]`."""
    if index not in _SIGNERS:
        Account.enable_unaudited_hdwallet_features()
        key = Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}").key
        _SIGNERS[index] = Signer(bytes(key))
        assert _SIGNERS[index].address == accounts[index].address
    return _SIGNERS[index]


def reverts(error: str, *last: object) -> AbstractContextManager[None]:
    """Expects a revert with the custom error of this name, whose data ends with `last`."""
    ending = ", ".join(re.escape(str(value)) for value in last)
    return reverts_with(f"{error}: .*{ending}")


@contextmanager
def reverts_with(pattern: str) -> Iterator[None]:
    """Expects a revert whose error is of this pattern.

    Every transaction in it is called first: a call that reverts tells its error at once, where Brownie has the chain
    trace a transaction step by step, which takes seconds.
    """
    with brownie.reverts(revert_pattern=pattern), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContractTx, "__call__", _called_first)
        yield


def _called_first(function: ContractTx, *arguments: Any) -> Any:
    function.call(*arguments)
    return function.transact(*arguments)


def now() -> int:
    return int(chain.time())


def pass_time(until: int) -> None:
    """Mines a block whose timestamp is exactly `until`; a `.call` sees that time, a transaction the next seconds."""
    chain.mine(timestamp=until)


@dataclass
class OpenTranche:
    id: TrancheId
    tree: SumTree
    expiry: int
    closes_at: int


@dataclass
class World:
    """Accounts: 0 deploys and governs, 1 and 2 pay, 3 is a session key, 4 to 7 are payees, 8 is nobody."""

    token: Any
    registry: Any
    models: Any
    escrow: Any
    timelock: Any
    harness: Any

    @property
    def domain(self) -> Any:
        return escrow_domain(CHAIN_ID, Address(self.escrow.address))

    def fund(self, payer: int, amount: int) -> None:
        """Gives an account `amount` and deposits it."""
        self.token.transfer(accounts[payer], amount, {"from": accounts[0]})
        self.token.approve(self.escrow, amount, {"from": accounts[payer]})
        self.escrow.deposit(amount, {"from": accounts[payer]})

    def open(self, payer: int, caps: dict[int, int], *, lasts: int = DAY, by: int | None = None) -> OpenTranche:
        """A tranche over payees (account index → cap), opened by the payer or by the session key `by`."""
        tree = self.tree(caps)
        return self.open_root(payer, tree.root, tree=tree, lasts=lasts, by=by)

    def tree(self, caps: dict[int, int]) -> SumTree:
        return SumTree([Leaf(Address(accounts[i].address), Nectar(cap)) for i, cap in caps.items()])

    def open_root(
        self, payer: int, root: SumNode, *, tree: SumTree | None = None, lasts: int = DAY, by: int | None = None
    ) -> OpenTranche:
        expiry = now() + lasts
        if by is None:
            tx = self.escrow.openTranche(root.hash, root.sum, expiry, {"from": accounts[payer]})
        else:
            tx = self.escrow.openTrancheFor(accounts[payer], root.hash, root.sum, expiry, {"from": accounts[by]})
        return self.opened(tx, tree)

    def opened(self, tx: Any, tree: SumTree | None) -> OpenTranche:
        """The tranche a transaction opened."""
        event = tx.events["TrancheOpened"]
        return OpenTranche(TrancheId(bytes(event["trancheId"])), tree, event["expiry"], event["closesAt"])

    def item(
        self,
        tranche: OpenTranche,
        payee: int,
        cumulative: int,
        *,
        by: int = 1,
        head: Hash32 = ZERO_HASH,
        domain: Any = None,
        **changes: Any,
    ) -> list[Any]:
        """One redemption, signed by account `by`. `changes` replace the cap, the signature, or all of the branch."""
        address = Address(accounts[payee].address)
        if "siblings" in changes:
            cap, index, siblings = changes["cap"], changes["index"], changes["siblings"]
        else:
            index = next(i for i, leaf in enumerate(tranche.tree.leaves) if leaf.payee == address)
            cap = tranche.tree.leaves[index].cap
            siblings = [[node.hash, node.sum] for node in tranche.tree.proof(index).siblings]
        voucher = Voucher(tranche.id, address, Nectar(cumulative), head)
        signed = voucher.sign(domain or self.domain, signer(by))
        return [
            [tranche.id, address, cumulative, head],
            changes.get("cap", cap),
            index,
            siblings,
            changes.get("signature", signed.signature),
        ]

    def redeem(self, *items: list[Any], by: int = 8) -> Any:
        return self.escrow.redeem(list(items), {"from": accounts[by]})

    def stake(self, node: int, amount: int = MIN_STAKE, owner: int | None = None) -> None:
        """Registers an account as a node."""
        self.token.transfer(accounts[node], amount, {"from": accounts[0]})
        self.token.approve(self.registry, amount, {"from": accounts[node]})
        who = accounts[node if owner is None else owner]
        self.registry.register(b"peer-%d" % node, who, amount, {"from": accounts[node]})

    def govern(self, target: Any, call: bytes) -> Any:
        """Passes a call through the timelock."""
        arguments = (target, 0, call, bytes(32), bytes(32))
        self.timelock.schedule(*arguments, self.timelock.getMinDelay(), {"from": accounts[0]})
        chain.sleep(self.timelock.getMinDelay() + 1)
        return self.timelock.execute(*arguments, {"from": accounts[0]})


def fee_of(cumulative: int, bps: int = FEE_BPS) -> int:
    """The fee on a payee's claims of one tranche so far."""
    return cumulative * bps // 10_000


def deploy(project: Any, deployer: Any, token: Any = None) -> World:
    """Everything, as README.md's deployment order says; the deployer stays the registry's admin."""
    sender = {"from": deployer}
    token = token or deployer.deploy(project.NectarToken, deployer, 10**8 * ONE_NECTAR, deployer)
    timelock = deployer.deploy(project.Timelock, 60, [deployer], [deployer])
    registry = deployer.deploy(project.NodeRegistry, token, deployer, MIN_STAKE, UNBONDING)
    models = deployer.deploy(project.ModelRegistry)
    escrow = deployer.deploy(project.Escrow, token, registry, timelock, PARAMETERS)
    registry.grantRole(registry.ESCROW_ROLE(), escrow, sender)
    registry.grantRole(registry.SLASHER_ROLE(), deployer, sender)
    registry.grantRole(registry.JAILER_ROLE(), deployer, sender)
    harness = deployer.deploy(project.ProtocolHarness)
    return World(token, registry, models, escrow, timelock, harness)
