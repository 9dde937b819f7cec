"""What a dispute costs, for test_gas.py. One juror holds every seat, so that no draw of lots changes a figure."""

from __future__ import annotations

from typing import Any

from brownie import ZERO_ADDRESS, accounts, chain
from eth_utils import keccak
from jury_world import CHALLENGER, FAULTY, JUROR_UNBONDING, NODE, OWNER, SEAT_STAKE, deploy_jury
from world import ONE_NECTAR, pass_time

CROWD, AT_ONCE = 300, 25


def measure_jury(project: Any, deployer: Any, measure: Any) -> None:
    jury = deploy_jury(project, deployer)
    measure("deploy Disputes with its JurorPool", jury.disputes.tx)
    jury.token.transfer(accounts[0], 10**6 * ONE_NECTAR, {"from": deployer})
    jury.stake(NODE, owner=OWNER)
    measure("join the jurors, first", jury.join(7, 100 * SEAT_STAKE))
    id_ = jury.accuse(receipt=keccak(text="gas"))
    measure("accuse", chain.get_transaction(chain[-1]["transactions"][0]))
    for number, seats in enumerate((5, 11, 23)):
        chain.mine(1)
        measure(f"draw {seats} seats, one juror", jury.disputes.draw(id_, {"from": accounts[0]}))
        vote = 3 - FAULTY if number == 1 else FAULTY
        measure(f"commit, round {number}", jury.commit(id_, 7, vote))
        pass_time(jury.current(id_)["commitUntil"] + 1)
        measure(f"reveal, round {number}", jury.reveal(id_, 7, vote))
        pass_time(jury.current(id_)["revealUntil"] + 1)
        if number < 2:
            measure(f"appeal, round {number}", jury.appeal(id_, by=OWNER if number == 0 else CHALLENGER))
    measure("conclude, faulty after two appeals", jury.disputes.conclude(id_, {"from": accounts[0]}))
    measure("settle one juror, three rounds", jury.settle(id_, [7]))
    measure("withdraw a credit", jury.disputes.withdraw(accounts[CHALLENGER], {"from": accounts[CHALLENGER]}))
    measure("beginLeave", jury.pool.beginLeave(accounts[7], 10 * SEAT_STAKE, {"from": accounts[7]}))
    _measure_crowd(project, deployer, jury.token, measure)


def _measure_crowd(project: Any, deployer: Any, token: Any, measure: Any) -> None:
    """The largest jury out of hundreds of jurors: in a pool whose jury is the deployer."""
    pool = deployer.deploy(project.JurorPool, token, JUROR_UNBONDING)
    crowd = deployer.deploy(project.Crowd)
    token.transfer(crowd, (CROWD + 1) * SEAT_STAKE, {"from": deployer})
    for _ in range(CROWD // AT_ONCE):
        crowd.join(token, pool, AT_ONCE, SEAT_STAKE, {"from": deployer})
    pool.freeze({"from": deployer})
    token.approve(pool, SEAT_STAKE, {"from": deployer})
    measure(f"join the jurors, after {CROWD} and an accusation", pool.join(deployer, SEAT_STAKE, {"from": deployer}))
    arguments = (0, CROWD, keccak(text="seed"), 23, [ZERO_ADDRESS] * 5)
    jurors, seats = pool.draw(*arguments)
    assert (sum(seats), len(jurors)) == (23, 23)
    measure(f"find 23 seats among {CROWD} jurors", pool.draw.transact(*arguments, {"from": deployer}))
    measure("lock what stands behind 23 seats", pool.lock(jurors, seats, SEAT_STAKE, {"from": deployer}))
