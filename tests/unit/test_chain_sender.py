"""One logical call is one transaction, whatever goes wrong on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from simchain import GWEI, OTHER, REVERTER, RefusedError, SimChain, network

from corolla_core.chain.account import Call
from corolla_core.chain.devnet_keys import devnet_signer
from corolla_core.chain.refusal import Refusal, classify
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import Patience, TransactionSender
from corolla_core.protocol.errors import (
    ChainUnreachable,
    InsufficientFunds,
    KeystoreError,
    RpcRefused,
    TransactionNotMined,
    TransactionReplaced,
    TransactionReverted,
    WrongChain,
)
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import Wei

pytestmark = pytest.mark.anyio

SIGNER = Signer(b"\x11" * 32)
CALL = Call(OTHER, b"pay")
SHORT = Patience(mined=20.0, bump=5.0, rebroadcast=1.0, replaced_depth=2)


class Endpoint(SimChain):
    """A simulated chain that counts what was broadcast and can lose or refuse the next messages."""

    def __init__(self) -> None:
        super().__init__()
        self.raws: list[str] = []
        self.lost_answers = 0
        self.lost_requests = 0
        self.refusals: list[str] = []
        self.before, self.after = self._lose_request, self._lose_answer

    def eth_sendRawTransaction(self, raw: str) -> str:
        self.raws.append(raw)
        if self.refusals:
            raise RefusedError(self.refusals.pop(0))
        return super().eth_sendRawTransaction(raw)

    def sender(self, patience: Patience = SHORT) -> TransactionSender:
        chain = Chain(network(), transport=self, deadline=10.0, clock=self.clock())
        return TransactionSender(chain, SIGNER, patience=patience)

    def mine_each_tick(self) -> None:
        self.tick = lambda: void(self.mine())

    def rival(self, data: bytes = b"rival", *, nonce: int = 0, price: int = 90) -> None:
        """Another process uses our key."""
        self.intrude(SIGNER, nonce, data, max_fee=price * GWEI, tip=price * GWEI)

    def _lose_request(self, method: str) -> None:
        if method == "eth_sendRawTransaction" and self.lost_requests:
            self.lost_requests -= 1
            raise ConnectionError

    def _lose_answer(self, method: str) -> None:
        if method == "eth_sendRawTransaction" and self.lost_answers:
            self.lost_answers -= 1
            raise ConnectionError


def void(_: object) -> None:
    return None


def once(action: Callable[[], object]) -> Callable[[], None]:
    """`action` the first time, then nothing."""
    todo = [action]

    def tick() -> None:
        if todo:
            todo.pop()()

    return tick


@pytest.fixture
def end() -> Endpoint:
    return Endpoint()


async def test_a_call_is_mined_with_the_hash_it_was_sent_under(end: Endpoint) -> None:
    end.mine_each_tick()
    mined = await end.sender().send(CALL)
    assert end.eth_getTransactionReceipt("0x" + mined.tx_hash.hex()) is not None
    assert end.executed() == {b"pay": 1}
    assert mined.fee == 21_000 * 2 * GWEI


async def test_calls_sent_at_once_get_consecutive_nonces(end: Endpoint) -> None:
    end.mine_each_tick()
    one, two = end.sender(), end.sender()
    two.state = one.state = one.chain.account_state(SIGNER.address)
    await asyncio.gather(*(s.send(Call(OTHER, b"%d" % n)) for n, s in enumerate([one, two] * 5)))
    nonces = [tx.nonce for block in end.blocks for tx in block.txs]
    assert nonces == list(range(10))


async def test_a_lost_answer_does_not_make_a_second_transaction(end: Endpoint) -> None:
    end.mine_each_tick()
    end.lost_answers = 3
    await end.sender().send(CALL)
    assert len(set(end.raws)) == 1
    assert end.executed() == {b"pay": 1}


async def test_a_lost_request_is_sent_again_as_the_same_transaction(end: Endpoint) -> None:
    end.mine_each_tick()
    end.lost_requests = 3
    await end.sender().send(CALL)
    assert len(set(end.raws)) == 1
    assert end.executed() == {b"pay": 1}


async def test_a_nonce_somebody_else_used_is_read_again(end: Endpoint) -> None:
    end.mine_each_tick()
    stale = iter(["0x0", "0x0"])
    honest = end.eth_getTransactionCount
    end.rival()
    end.mine()
    end.eth_getTransactionCount = lambda who, tag: next(stale, None) or honest(who, tag)  # type: ignore[method-assign]
    await end.sender().send(CALL)
    assert end.executed() == {b"rival": 1, b"pay": 1}


async def test_a_dropped_transaction_is_broadcast_again_unchanged(end: Endpoint) -> None:
    def dropped() -> None:
        end.pool.clear()
        end.tick = lambda: void(end.mine() if len(end.raws) > 1 else None)

    end.tick = dropped
    await end.sender().send(CALL)
    assert len(set(end.raws)) == 1
    assert end.executed() == {b"pay": 1}


async def test_a_replaced_call_is_sent_anew_once_the_other_lies_deep(end: Endpoint) -> None:
    def replaced() -> None:
        end.rival()
        end.mine_each_tick()

    end.tick = once(replaced)
    mined = await end.sender().send(CALL)
    assert end.executed() == {b"rival": 1, b"pay": 1}
    rival_block = next(b.number for b in end.blocks if b.txs)
    assert mined.block_number > rival_block + 2


async def test_a_replaced_call_is_an_error_while_a_reorg_may_bring_it_back(end: Endpoint) -> None:
    def replaced() -> None:
        end.rival()
        end.mine()

    end.tick = once(replaced)
    with pytest.raises(TransactionReplaced) as error:
        await end.sender().send(CALL)
    assert error.value.nonce == 0
    assert end.executed() == {b"rival": 1}


async def test_a_call_a_reorg_brings_back_is_not_sent_a_second_time(end: Endpoint) -> None:
    sender = end.sender()
    ours = await sender.send(CALL, wait=False)
    first = dict(end.pool)
    end.rival()
    end.mine()
    with pytest.raises(TransactionReplaced):
        await ours.mined()
    end.reorganise(1, keep=False)
    end.pool.update(first)
    end.mine_each_tick()
    mined = await sender.send(CALL)
    assert mined.tx_hash == ours.tx_hash
    assert end.executed() == {b"pay": 1}


async def test_a_stuck_call_is_repriced_at_its_own_nonce(end: Endpoint) -> None:
    def pricier() -> None:
        end.base_fee = 20 * GWEI
        end.tick = lambda: void(end.mine())

    end.tick = once(pricier)
    await end.sender(Patience(mined=200.0, bump=5.0)).send(CALL)
    assert len(set(end.raws)) > 1
    assert {tx.nonce for block in end.blocks for tx in block.txs} == {0}
    assert end.executed() == {b"pay": 1}


async def test_repricing_has_an_end(end: Endpoint) -> None:
    with pytest.raises(TransactionNotMined):
        await end.sender(Patience(mined=300.0, bump=5.0, most_bumps=3)).send(CALL)
    assert len(set(end.raws)) == 4


async def test_an_underpriced_call_keeps_its_nonce_and_pays_more(end: Endpoint) -> None:
    end.mine_each_tick()
    end.refusals = ["transaction underpriced: tip needed", "max fee per gas less than block base fee"]
    mined = await end.sender().send(CALL)
    assert len(set(end.raws)) == 3
    assert mined.block_number > 0
    assert end.executed() == {b"pay": 1}


async def test_a_rival_waiting_at_our_nonce_is_not_overbid(end: Endpoint) -> None:
    end.rival()
    end.eth_getTransactionCount = lambda who, tag: hex(end._count(SIGNER.address, []))  # type: ignore[method-assign]
    end.tick = lambda: void(end.mine())
    await end.sender().send(CALL)
    assert end.executed() == {b"rival": 1, b"pay": 1}


async def test_a_call_of_unknown_outcome_is_taken_up_again_by_an_equal_one(end: Endpoint) -> None:
    sender = end.sender(Patience(mined=3.0, bump=100.0))
    with pytest.raises(TransactionNotMined) as unknown:
        await sender.send(CALL)
    end.mine_each_tick()
    mined = await sender.send(CALL)
    assert mined.tx_hash == unknown.value.tx_hash
    assert end.executed() == {b"pay": 1}
    assert (await sender.send(CALL)).tx_hash != mined.tx_hash
    assert end.executed() == {b"pay": 2}


async def test_a_forgotten_call_is_made_anew_and_its_old_nonce_still_counts(end: Endpoint) -> None:
    sender = end.sender(Patience(mined=3.0, bump=100.0))
    with pytest.raises(TransactionNotMined) as unknown:
        await sender.send(CALL)
    sender.forget(unknown.value.tx_hash)
    end.mine_each_tick()
    await sender.send(CALL)
    assert end.executed() == {b"pay": 2}


async def test_a_cancelled_send_is_taken_up_again_by_an_equal_one(end: Endpoint) -> None:
    sender = end.sender()
    task = asyncio.create_task(sender.send(CALL))
    end.after = lambda method: void(task.cancel() if method == "eth_sendRawTransaction" else None)
    with pytest.raises(asyncio.CancelledError):
        await task
    end.after = lambda method: None
    end.mine_each_tick()
    await sender.send(CALL)
    assert len(set(end.raws)) == 1
    assert end.executed() == {b"pay": 1}


async def test_a_lost_transaction_nobody_follows_is_revived_before_later_nonces(end: Endpoint) -> None:
    sender = end.sender()
    first = await sender.send(Call(OTHER, b"first"), wait=False)
    end.pool.clear()
    second = await sender.send(Call(OTHER, b"second"), wait=False)
    end.mine()
    assert end.executed() == {b"first": 1, b"second": 1}
    assert (await second.mined()).block_number == (await first.mined()).block_number


async def test_a_call_that_would_revert_is_not_sent(end: Endpoint) -> None:
    with pytest.raises(TransactionReverted) as error:
        await end.sender().send(Call(REVERTER, b"x"))
    assert error.value.reason == "never"
    assert end.raws == []


async def test_a_call_that_reverts_when_mined_says_why_and_is_not_sent_again(end: Endpoint) -> None:
    end.mine_each_tick()
    sender = end.sender()
    with pytest.raises(TransactionReverted) as error:
        await sender.send(Call(REVERTER, b"x", gas=50_000))
    assert error.value.reason == "never"
    assert len(end.raws) == 1
    assert sender.state.unresolved == []


async def test_an_account_without_gas_money_is_a_typed_error_with_the_numbers(end: Endpoint) -> None:
    end.refusals = ["insufficient funds for gas * price + value"]
    with pytest.raises(InsufficientFunds) as error:
        await end.sender().send(Call(OTHER, value=Wei(7)))
    assert error.value.available == 10**18
    assert error.value.needed > 7


async def test_a_transaction_no_block_can_hold_is_refused_at_once(end: Endpoint) -> None:
    end.refusals = ["intrinsic gas too low: have 1, want 21000"]
    with pytest.raises(RpcRefused):
        await end.sender().send(Call(OTHER, gas=1))
    assert len(end.raws) == 1


async def test_a_refusal_in_unknown_words_counts_as_perhaps_sent(end: Endpoint) -> None:
    sender = end.sender(Patience(mined=3.0))
    end.refusals = ["the flux capacitor is cold"] * 50
    with pytest.raises(TransactionNotMined):
        await sender.send(CALL)
    assert len(set(end.raws)) == 1


async def test_an_endpoint_that_is_down_from_the_start_means_nothing_was_sent(end: Endpoint) -> None:
    def down(method: str) -> None:
        raise ConnectionError

    end.before = down
    with pytest.raises(ChainUnreachable):
        await end.sender().send(CALL)
    assert end.time >= 10.0
    end.before = lambda method: None
    end.mine_each_tick()
    await end.sender().send(CALL)
    assert end.executed() == {b"pay": 1}


async def test_an_outage_in_the_middle_is_waited_out(end: Endpoint) -> None:
    def outage(method: str) -> None:
        if 1.0 < end.time < 31.0:
            raise ConnectionError

    end.before = outage
    end.tick = lambda: void(end.mine() if end.time > 31 else None)
    await end.sender(Patience(mined=120.0)).send(CALL)
    assert end.executed() == {b"pay": 1}


@pytest.mark.parametrize("answer", ["nonsense", None, {}, [], {"jsonrpc": "2.0"}])
async def test_an_endpoint_that_talks_nonsense_is_unreachable(answer: object) -> None:
    end = Endpoint()

    class Nonsense:
        async def make_request(self, method: object, params: object) -> object:
            return answer

    with pytest.raises(ChainUnreachable):
        await Chain.connect(network(), transport=Nonsense(), deadline=3.0, clock=end.clock())


async def test_the_wrong_chain_is_refused_on_connecting(end: Endpoint) -> None:
    with pytest.raises(WrongChain) as error:
        await Chain.connect(network(chain_id=1), transport=end, clock=end.clock())
    assert (error.value.expected, error.value.found) == (1, 777)


async def test_a_devnet_key_cannot_send_off_a_devnet(end: Endpoint) -> None:
    chain = Chain(network(), transport=end)
    with pytest.raises(KeystoreError):
        TransactionSender(chain, devnet_signer(0))
    TransactionSender(Chain(network(chain_id=1337), transport=end), devnet_signer(0))


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("already known", Refusal.ALREADY_KNOWN),
        ("nonce too low: next nonce 5, tx nonce 4", Refusal.NONCE_TOO_LOW),
        ("the tx doesn't have the correct nonce. account has nonce of: 1 tx has nonce of: 0", Refusal.NONCE_TOO_LOW),
        ("replacement transaction underpriced", Refusal.NONCE_TAKEN),
        ("transaction underpriced", Refusal.FEE_TOO_LOW),
        ("max fee per gas less than block base fee: address 0x, maxFeePerGas: 1", Refusal.FEE_TOO_LOW),
        ("insufficient funds for gas * price + value", Refusal.NO_FUNDS),
        ("sender doesn't have enough funds to send tx.", Refusal.NO_FUNDS),
        ("exceeds block gas limit", Refusal.INVALID),
        ("internal error", Refusal.UNCLEAR),
    ],
)
def test_refusals_are_told_apart_by_their_words(words: str, kind: Refusal) -> None:
    assert classify(words) is kind
