"""What proving faults costs, for test_gas.py.

Every word of calldata is the same in every run: sessions are drawn from a seed, and end in a far year.
"""

from __future__ import annotations

from random import Random

from brownie import accounts, chain
from faults_world import (
    BLOCKS,
    CLASSES,
    MODEL,
    OUTPUT,
    RESPONSE_TIME,
    Work,
    add_faults,
    manifest_root,
)
from world import MIN_STAKE

from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.span import Span

FAR = 0x0FFF_FFFF_FFFF // 1000
FORKER, LINKER, WEIGHER, OPENER, CHALLENGER = 5, 6, 7, 8, 9
X = Hash32(b"\x0e" * 32)
ROW = b"\xa5" * 8192  # 4096 values of bf16


def measure_faults(project, base, measure, deployer):
    """`measure(name, transaction)` of each thing that can be done to a node; `base` is a deployed World."""
    world = add_faults(project, deployer, base)
    measure("deploy Faults", world.faults.tx)
    world.publish(MODEL, manifest_root(), BLOCKS, CLASSES)
    for node in (FORKER, LINKER, WEIGHER, OPENER):
        world.stake(node)

    session = work(FORKER, Span(0, 4))
    first = session.chunk(0, 8, at=FAR)
    measure("proveEquivocation", world.prove_fork(first, session.forge(out_root=X), by=CHALLENGER))
    world.registry.addStake(accounts[FORKER], MIN_STAKE, {"from": world.rich(FORKER, MIN_STAKE)})
    again = session.chunk(8, 8, at=FAR)
    paid = (world.redeem_with(FORKER, again.receipt.hash()), again)
    tx = world.prove_fork(again, session.forge(out_root=X), paid=paid, by=CHALLENGER)
    measure("proveEquivocation, the client refunded", tx)
    session = work(LINKER, Span(4, 12), session=session.session)
    session.chunk(0, 8, upstream=first, at=FAR)
    measure("proveBrokenLink", world.prove_link(session.receipts[0], first, by=CHALLENGER))
    session = work(WEIGHER, Span(4, 12))
    session.chunk(0, 8, at=FAR)
    false = session.forge(weight_root=X)
    measure("proveWeights, 8 of 12 blocks", world.prove_weights(false, by=CHALLENGER))

    session = work(OPENER, Span(4, 12))
    session.chunk(0, 128, inputs=[ROW] * 128, at=FAR)
    for pos in range(128, 256, 8):
        session.chunk(pos, 8, at=FAR)
    tranche = world.redeem_with(OPENER, session.receipts[-1].receipt.hash())
    asked = world.challenge(session, 16, 248, OUTPUT, tranche, by=CHALLENGER)
    measure("challengeOpening, at the head", asked)
    tx = world.challenge(session, 0, 77, 0, tranche, by=CHALLENGER)
    measure("challengeOpening, 16 receipts before the head", tx)
    answer = session.opening(0, 77, 0)
    opened = tx.events["OpeningChallenged"]["challengeId"]
    measure("open, a row of 8 KiB among 128", world.faults.open(opened, *answer, {"from": accounts[OPENER]}))
    chain.sleep(RESPONSE_TIME + 60)
    tx = world.faults.expireOpening(asked.events["OpeningChallenged"]["challengeId"], {"from": accounts[CHALLENGER]})
    measure("expireOpening", tx)


def work(node, span, **session):
    return Work(node, span, draw=Random(node).randbytes, **session)
