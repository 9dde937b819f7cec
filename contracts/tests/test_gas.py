"""What things cost. The figures live in contracts/gas.json, where a diff shows a change.

This test rewrites the file and fails if it changed: look at the diff, then commit it.
"""

from __future__ import annotations

import json
from pathlib import Path

from brownie import accounts, chain
from eth_utils import keccak
from gas_cooperative import measure_cooperative
from gas_faults import measure_faults
from gas_reputation import governor_gas, reputation_gas
from jury_gas import measure_jury
from world import MIN_STAKE, ONE_NECTAR, THAW_DELAY, deploy, now, pass_time

FILE = Path(__file__).parents[1] / "gas.json"
TEN = 10 * ONE_NECTAR


def fixed_expiry() -> int:
    """A day ahead or so, with low bytes that never vary: calldata is paid by the byte, and less for zeros."""
    return (now() + 86_400) | 0x1FFFF


def test_gas_figures_are_those_on_file(module_isolation, fn_isolation, project):
    world = deploy(project, accounts[11])
    world.token.transfer(accounts[0], 10**6 * ONE_NECTAR, {"from": accounts[11]})
    gas: dict[str, int] = {}

    def measure(name, tx):
        gas[name] = tx.gas_used
        chain.sleep(10)  # never two in one second: stake locks that end together are merged, which costs less

    def open_for(caps, name=None, by=1):
        tranche_args = world.tree(caps)
        tx = world.escrow.openTranche(
            tranche_args.root.hash, tranche_args.root.sum, fixed_expiry(), {"from": accounts[by]}
        )
        if name:
            measure(name, tx)
        return world.opened(tx, tranche_args)

    for contract in ("NectarToken", "NodeRegistry", "ModelRegistry", "Escrow"):
        gas[f"deploy {contract}"] = getattr(world, _FIELD[contract]).tx.gas_used
    world.token.transfer(accounts[1], 10_000 * ONE_NECTAR, {"from": accounts[0]})
    world.token.approve(world.escrow, 2**255, {"from": accounts[1]})
    measure("deposit, first", world.escrow.deposit(5_000 * ONE_NECTAR, {"from": accounts[1]}))
    measure("deposit, again", world.escrow.deposit(5_000 * ONE_NECTAR, {"from": accounts[1]}))

    twelve = dict.fromkeys(range(12), TEN)
    first = open_for(twelve, "openTranche for 12 payees, first")
    second = open_for(twelve, "openTranche for 12 payees, again")
    measure("redeem, payee without stake, first", world.redeem(world.item(first, 5, 1_000)))
    measure("redeem, payee without stake, again", world.redeem(world.item(first, 5, 2_000)))
    measure("redeem, already redeemed", world.redeem(world.item(first, 5, 2_000)))

    world.token.transfer(accounts[4], MIN_STAKE, {"from": accounts[0]})
    world.token.approve(world.registry, MIN_STAKE, {"from": accounts[4]})
    tx = world.registry.register(b"p" * 38, accounts[4], MIN_STAKE, {"from": accounts[4]})
    measure("register a node", tx)
    measure("redeem, staked node, first", world.redeem(world.item(first, 4, 1_000)))
    measure("redeem, staked node, again", world.redeem(world.item(first, 4, 2_000)))

    tranches = [second] + [open_for(twelve) for _ in range(9)]
    tx = world.redeem(*[world.item(tranche, 4, 1_000) for tranche in tranches])
    measure("redeem a batch of 10 tranches, staked node, first", tx)
    tx = world.redeem(*[world.item(tranche, 4, 2_000) for tranche in tranches])
    measure("redeem a batch of 10 tranches, staked node, again", tx)

    measure("withdrawPayee", world.escrow.withdrawPayee(accounts[4], {"from": accounts[4]}))
    measure("burnFees", world.escrow.burnFees({"from": accounts[8]}))
    tx = world.escrow.authorizeSigner(accounts[3], TEN, fixed_expiry(), {"from": accounts[1]})
    measure("authorizeSigner", tx)
    tree = world.tree({4: ONE_NECTAR})
    arguments = (accounts[1], tree.root.hash, tree.root.sum, fixed_expiry())
    measure("openTrancheFor, by a session key", world.escrow.openTrancheFor(*arguments, {"from": accounts[3]}))
    measure("thawSigner", world.escrow.thawSigner(accounts[3], {"from": accounts[1]}))
    pass_time(fixed_expiry() + THAW_DELAY + 86_400)
    measure("revokeSigner", world.escrow.revokeSigner(accounts[3], {"from": accounts[1]}))
    measure("reclaim", world.escrow.reclaim(first.id, {"from": accounts[1]}))
    measure("withdrawFree", world.escrow.withdrawFree(accounts[1], ONE_NECTAR, {"from": accounts[1]}))
    measure("beginUnstake", world.registry.beginUnstake(accounts[4], MIN_STAKE, {"from": accounts[4]}))
    pass_time(world.registry.nodeOf(accounts[4])["unbondingAt"])
    measure("withdrawStake", world.registry.withdrawStake(accounts[4], {"from": accounts[4]}))
    roots = [keccak(text=f"block {i}") for i in range(30)]
    tx = world.models.publish("smollm2-135m-instruct", roots[0], roots, [keccak(text="fp32")], {"from": accounts[1]})
    measure("publish a model of 30 blocks", tx)
    chain.snapshot()  # each part begins where the ones before it do not matter
    for part in (
        lambda: measure_jury(project, accounts[10], measure),
        lambda: gas.update(reputation_gas(project, world)),
        lambda: measure_faults(project, world, measure, accounts[11]),
        lambda: measure_cooperative(project, world, measure),
        lambda: gas.update(governor_gas(project, world, accounts[11])),
    ):
        part()
        chain.revert()

    text = json.dumps(gas, indent=1) + "\n"
    before = FILE.read_text() if FILE.exists() else ""
    FILE.write_text(text)
    assert text == before, "gas figures changed; contracts/gas.json was rewritten: look at its diff and commit it"


_FIELD = {"NectarToken": "token", "NodeRegistry": "registry", "ModelRegistry": "models", "Escrow": "escrow"}
