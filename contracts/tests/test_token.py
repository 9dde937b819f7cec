"""Nectar: a supply made once, a faucet on a devnet alone, permits and votes."""

from __future__ import annotations

import pytest
from brownie import accounts, chain
from eth_utils import keccak
from world import CHAIN_ID, ONE_NECTAR, reverts, signer

from corolla_core.protocol.eip712 import Domain, address_word, word
from corolla_core.protocol.ids import Address, Hash32

NOWHERE = "0x" + "0" * 40
PERMIT = keccak(text="Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")


def permit(token, owner, spender, value, deadline, nonce=0):
    """An EIP-2612 signature as (v, r, s)."""
    struct = PERMIT + address_word(signer(owner).address) + address_word(Address(spender.address))
    struct_hash = keccak(struct + word(value) + word(nonce) + word(deadline))
    digest = Domain("Nectar", "1", CHAIN_ID, Address(token.address)).digest(struct_hash)
    signature = signer(owner).sign(Hash32(digest))
    return signature[64], signature[:32], signature[32:64]


def test_the_treasury_gets_the_whole_supply(world):
    assert world.token.decimals() == 18
    assert (world.token.name(), world.token.symbol()) == ("Nectar", "NCTR")
    assert world.token.totalSupply() == 10**8 * ONE_NECTAR


def test_the_faucet_stops_at_the_maximum_supply(world):
    left = world.token.MAX_SUPPLY() - world.token.totalSupply()
    with reverts("ERC20ExceededSafeSupply"):
        world.token.mint(accounts[5], left + 1, {"from": accounts[0]})
    world.token.mint(accounts[5], left, {"from": accounts[0]})
    assert world.token.balanceOf(accounts[5]) == left


def test_only_the_faucet_mints(world):
    with reverts("NotMinter", accounts[5].address.lower()):
        world.token.mint(accounts[5], 1, {"from": accounts[5]})


def test_without_a_faucet_nobody_mints(world, project):
    token = accounts[0].deploy(project.NectarToken, accounts[0], ONE_NECTAR, NOWHERE)
    with reverts("NotMinter"):
        token.mint(accounts[0], 1, {"from": accounts[0]})


@pytest.mark.parametrize("supply", [10**9 * ONE_NECTAR + 1])
def test_no_supply_beyond_the_maximum_can_be_deployed(world, project, supply):
    with reverts("ERC20ExceededSafeSupply"):
        accounts[0].deploy(project.NectarToken, accounts[0], supply, NOWHERE)


def test_a_permit_deposits_without_an_earlier_approval(world):
    world.token.transfer(accounts[5], 70, {"from": accounts[0]})
    deadline = chain.time() + 1000
    v, r, s = permit(world.token, 5, world.escrow, 70, deadline)
    world.escrow.depositWithPermit(70, deadline, v, r, s, {"from": accounts[5]})
    assert world.escrow.freeBalance(accounts[5]) == 70


def test_a_permit_that_someone_else_submitted_first_does_no_harm(world):
    world.token.transfer(accounts[5], 70, {"from": accounts[0]})
    deadline = chain.time() + 1000
    v, r, s = permit(world.token, 5, world.escrow, 70, deadline)
    world.token.permit(accounts[5], world.escrow, 70, deadline, v, r, s, {"from": accounts[8]})
    world.escrow.depositWithPermit(70, deadline, v, r, s, {"from": accounts[5]})
    assert world.escrow.freeBalance(accounts[5]) == 70


def test_a_forged_permit_deposits_nothing(world):
    world.token.transfer(accounts[5], 70, {"from": accounts[0]})
    deadline = chain.time() + 1000
    v, r, s = permit(world.token, 6, world.escrow, 70, deadline)
    with reverts("ERC20InsufficientAllowance"):
        world.escrow.depositWithPermit(70, deadline, v, r, s, {"from": accounts[5]})


def test_delegated_tokens_vote(world):
    world.token.transfer(accounts[5], 70, {"from": accounts[0]})
    assert world.token.getVotes(accounts[6]) == 0
    world.token.delegate(accounts[6], {"from": accounts[5]})
    assert world.token.getVotes(accounts[6]) == 70
    world.token.burn(30, {"from": accounts[5]})
    assert world.token.getVotes(accounts[6]) == 40
