"""What a validator takes to court: one dispute over a node, with what was paid, and each proof."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from books import PAYEE, PAYER, receipt, tranche
from eth_abi.abi import encode

from corolla_core.chain.abi import load_abi
from corolla_core.chain.disputes import Accusation, Outcome
from corolla_core.chain.faults import ManifestParts, Payment
from corolla_core.protocol.errors import TransactionReverted
from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, ModelRoot, address, address_bytes
from corolla_core.protocol.provable import BrokenLink, FalseWeights, Publication
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.receipt_chain import Fork
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_validator.payments import Payments
from corolla_validator.ports import Charge, Count, Paid, Trial
from corolla_validator.prosecutor import Prosecutor

pytestmark = pytest.mark.anyio
NODE = PAYEE.address
EVIDENCE = Hash32(b"e" * 32)
PARTS = ManifestParts("m", Hash32(b"c" * 32), Hash32(b"f" * 32), Hash32(b"h" * 32))
SIGNED = [receipt(session=n, t_out=2_000 + n) for n in range(3)]
CHARGE = Charge(NODE, tuple(Count(one, EVIDENCE, {one.receipt.hash(): one.receipt.t_out}) for one in SIGNED))


class Docket:
    """The disputes there are, as (node, receipt, outcome)."""

    def __init__(self) -> None:
        self.held: list[tuple[Address, Hash32, Outcome]] = []
        self.made: list[Accusation] = []
        self.refusing = False
        self.others: tuple[Address, Hash32, Outcome] | None = None
        """What another validator brings just before us."""

    async def dispute_over(self, node: Address, receipt_hash: Hash32) -> int | None:
        found = [n for n, (who, over, _) in enumerate(self.held, 1) if (who, over) == (node, receipt_hash)]
        return found[-1] if found else None

    async def count(self) -> int:
        return len(self.held)

    async def dispute(self, number: int) -> Any:
        node, _receipt, outcome = self.held[number - 1]
        return SimpleNamespace(node=node, outcome=outcome)

    async def accuse(self, accusation: Accusation) -> int:
        if self.others is not None:
            self.held.append(self.others)
        if self.refusing:
            raise TransactionReverted("no", reason="AlreadyAccused")
        self.made.append(accusation)
        return len(self.held) + len(self.made)


PAYMENT = Payment(tranche(1), SIGNED[0].receipt)


class Proofs:
    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []
        self.refusing = False

    async def _prove(self, *what: Any, payment: Payment | None) -> Any:
        if self.refusing:
            raise TransactionReverted("no", reason="AlreadyPunished")
        self.made.append((*what, payment))
        return SimpleNamespace(taken=Nectar(9))

    prove_equivocation = prove_broken_link = prove_weights = _prove


class Models:
    def __init__(self) -> None:
        self.model: Publication | None = Publication(
            ModelRoot(b"m" * 32), (EVIDENCE,), frozenset({NumericClass.FP32}), 3, UnixTime(0)
        )

    async def now(self, *, within: float = 60.0) -> Publication | None:
        return self.model


class Escrow:
    """A chain with redemptions in its logs."""

    network = SimpleNamespace(escrow=address(b"\x09" * 20))

    def __init__(self, *redeemed: tuple[int, int, Hash32]) -> None:
        self.logs = [self._log(*each) for each in redeemed]
        self.asked: list[dict[str, Any]] = []

    async def block_number(self) -> int:
        return 100

    async def request(self, method: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
        self.asked.append(asked)
        return self.logs

    def _log(self, on: int, amount: int, head: Hash32) -> dict[str, Any]:
        topics = [load_abi("Escrow").topic("Redeemed"), tranche(on), bytes(12) + address_bytes(NODE)]
        data = encode(("uint128", "uint128", "uint128", "bytes32"), (amount, 0, amount, head))
        return {
            "address": self.network.escrow,
            "topics": ["0x" + topic.hex() for topic in topics],
            "data": "0x" + data.hex(),
            "blockNumber": "0x1",
            "blockHash": "0x" + bytes(32).hex(),
            "logIndex": "0x0",
            "transactionHash": "0x" + bytes(32).hex(),
        }


def court(docket: Docket | None = None, proofs: Proofs | None = None, models: Models | None = None) -> Prosecutor:
    docket_, proofs_, models_ = docket or Docket(), proofs or Proofs(), models or Models()
    return Prosecutor(docket_, proofs_, Payments(Escrow()), models_, PARTS, None)  # type: ignore[arg-type]


async def test_the_first_session_that_no_jury_has_seen_is_brought_with_what_the_client_paid() -> None:
    docket = Docket()
    docket.held.append((NODE, SIGNED[0].receipt.hash(), Outcome.CORRECT))
    paid = Paid(tranche(1), Nectar(7), frozenset())
    assert await court(docket).accuse(CHARGE, paid) == Trial(2, ours=True)
    (made,) = docket.made
    assert (made.signed, made.evidence_hash) == (SIGNED[1], EVIDENCE)
    assert (made.tranche_id, made.harm) == (tranche(1), Nectar(7))


@pytest.mark.parametrize("outcome", [Outcome.OPEN, Outcome.FAULTY])
async def test_who_stands_accused_or_was_convicted_is_not_accused_again(outcome: Outcome) -> None:
    docket = Docket()
    docket.held.append((NODE, SIGNED[0].receipt.hash(), outcome))
    prosecutor = court(docket)
    assert await prosecutor.accuse(CHARGE, None) == Trial(1, ours=False)
    assert await prosecutor.outcome(1) is outcome
    assert docket.made == []


@pytest.mark.parametrize("outcome", [Outcome.DRAW, Outcome.UNAVAILABLE])
async def test_what_no_jury_decided_over_is_brought_again(outcome: Outcome) -> None:
    docket = Docket()
    docket.held.append((NODE, SIGNED[0].receipt.hash(), outcome))
    assert await court(docket).accuse(CHARGE, None) == Trial(2, ours=True)
    assert [made.signed for made in docket.made] == [SIGNED[0]]


async def test_nothing_is_brought_twice_and_losing_a_race_is_no_error() -> None:
    docket = Docket()
    docket.held += [(NODE, one.receipt.hash(), Outcome.CORRECT) for one in SIGNED]
    assert await court(docket).accuse(CHARGE, None) is None
    late = Docket()
    late.refusing = True
    assert await court(late).accuse(CHARGE, None) is None
    late.others = (NODE, SIGNED[0].receipt.hash(), Outcome.OPEN)
    assert await court(late).accuse(CHARGE, None) == Trial(1, ours=False)


async def test_sessions_that_ran_at_once_are_redeemed_by_any_of_them() -> None:
    early, first, second = (Hash32(bytes([n]) * 32) for n in (1, 2, 3))
    rows = ({early: 10}, {first: 20, Hash32(b"a" * 32): 60}, {second: 30, Hash32(b"b" * 32): 50})
    charge = Charge(NODE, tuple(Count(SIGNED[0], EVIDENCE, receipts) for receipts in rows))
    assert charge.latest == {second, Hash32(b"a" * 32), Hash32(b"b" * 32)}


async def test_each_fault_goes_to_its_proof() -> None:
    proofs = Proofs()
    for fault in (Fork(*SIGNED[:2]), BrokenLink(*SIGNED[1:]), FalseWeights(SIGNED[0])):
        assert await court(proofs=proofs).prove(fault, PAYMENT) == Nectar(9)
    assert proofs.made == [(*SIGNED[:2], PAYMENT), (*SIGNED[1:], PAYMENT), (SIGNED[0], 3, PARTS, PAYMENT)]


async def test_what_somebody_proved_before_or_was_never_published_costs_nothing_more() -> None:
    proofs, models = Proofs(), Models()
    proofs.refusing = True
    assert await court(proofs=proofs).prove(Fork(*SIGNED[:2]), None) is None
    models.model = None
    assert await court(models=models).prove(FalseWeights(SIGNED[0]), None) is None


async def test_all_that_was_redeemed_for_the_sessions_counts_on_the_tranche_that_brought_most() -> None:
    heads = [one.receipt.hash() for one in SIGNED]
    other = receipt(session=9, signer=PAYER).receipt.hash()
    chain: Any = Escrow(
        (1, 3, heads[0]), (2, 5, ZERO_HASH), (2, 1, heads[1]), (2, 2, heads[2]), (1, 50, other), (1, 50, ZERO_HASH)
    )
    paid = await Payments(chain, blocks=30).for_sessions(NODE, set(heads))
    assert paid == Paid(tranche(2), Nectar(8), frozenset(heads[1:]))  # what was paid ahead is paid for what follows
    assert (chain.asked[0]["fromBlock"], chain.asked[0]["toBlock"]) == ("0x47", "0x64")
    assert await Payments(chain).for_sessions(NODE, {EVIDENCE}) is None
