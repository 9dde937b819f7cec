"""What pooling a stake and attesting an operator cost; test_gas.py puts it on file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from brownie import accounts
from world import MIN_STAKE, ONE_NECTAR, World, now

Measure = Callable[[str, Any], None]
NODE, MEMBERS = 7, (8, 9)


def measure_cooperative(project: Any, world: World, measure: Measure) -> None:
    """Two members, one node; the consortium is account 8."""
    factory = accounts[10].deploy(project.CooperativeFactory, world.token, world.registry, world.escrow)
    measure("deploy CooperativeFactory", factory.tx)
    names = [accounts[member] for member in MEMBERS]
    tx = factory.create((accounts[NODE], names, [1, 2], MIN_STAKE, 86_400), {"from": accounts[8]})
    measure("create a cooperative of 2", tx)
    pool = project.Cooperative.at(tx.events["CooperativeCreated"]["cooperative"])
    for member, shares in zip(MEMBERS, (1, 2), strict=True):
        world.token.transfer(accounts[member], shares * MIN_STAKE, {"from": accounts[11]})
        world.token.approve(pool, shares * MIN_STAKE, {"from": accounts[member]})
    measure("join a cooperative, first", pool.join({"from": accounts[8]}))
    pool.join({"from": accounts[9]})
    measure("acceptOwner", world.registry.acceptOwner(pool, {"from": accounts[NODE]}))
    measure("launch a cooperative", pool.launch(b"p" * 38, {"from": accounts[NODE]}))
    world.token.transfer(pool, ONE_NECTAR, {"from": accounts[11]})
    measure("withdraw from a cooperative, first", pool.withdraw({"from": accounts[8]}))
    operators = accounts[10].deploy(project.OperatorRegistry, accounts[8])
    measure("deploy OperatorRegistry", operators.tx)
    expiry = (now() + 86_400) | 0x1FFFF  # calldata is paid by the byte, and less for zeros
    tx = operators.attest(accounts[NODE], b"\x07" * 32, expiry, {"from": accounts[8]})
    measure("attest", tx)
    measure("revoke", operators.revoke(accounts[NODE], {"from": accounts[8]}))
