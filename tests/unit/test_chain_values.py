"""Networks, ABIs and events: what is read from files and endpoints is checked."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest
from eth_abi.abi import encode
from simchain import network

from corolla_core.chain import events as on_chain
from corolla_core.chain.abi import CONTRACTS, load_abi, revert_reason
from corolla_core.chain.events import CONTRACTS as INDEXED
from corolla_core.chain.events import IGNORED, Event, class_of, field_name, parse
from corolla_core.chain.mined import parse_log, parse_receipt
from corolla_core.chain.network import resolve_network
from corolla_core.chain.state import NetworkState, apply, fold
from corolla_core.protocol.errors import ChainError, ConfigError, InvalidInput
from corolla_core.protocol.ids import Address, Hash32, TrancheId, address

A, B = address(b"\x01" * 20), address(b"\x02" * 20)
T = TrancheId(b"\x07" * 32)
H = Hash32(b"\x08" * 32)


# ---- networks ----


def test_a_saved_network_loads_by_name_and_by_path(tmp_path: Path) -> None:
    saved = replace(network(), timelock=A, bootstrap=("/ip4/127.0.0.1/tcp/1/p2p/Qm",))
    path = saved.save(tmp_path)
    assert resolve_network("sim", folder=tmp_path) == saved
    assert resolve_network(str(path), folder=tmp_path / "elsewhere") == saved
    assert saved.domain.verifying_contract == saved.escrow


def test_a_network_saved_before_there_was_a_contract_of_faults_still_loads(tmp_path: Path) -> None:
    path = network().save(tmp_path)
    old = json.loads(path.read_text())
    del old["faults"]
    path.write_text(json.dumps(old))
    assert resolve_network("sim", folder=tmp_path) == network()


def test_an_unknown_network_says_which_are_known(tmp_path: Path) -> None:
    network().save(tmp_path)
    with pytest.raises(ConfigError, match="known: sim"):
        resolve_network("other", folder=tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "x"}', "\x00"])
def test_a_file_that_describes_no_network_is_a_typed_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ConfigError):
        resolve_network(str(tmp_path / "bad.json"), folder=tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../x"},
        {"name": ""},
        {"chain_id": 0},
        {"rpc_url": "file:///etc/passwd"},
        {"escrow": "0x" + "aa" * 20},
        {"token": "nonsense"},
        {"faults": "0x" + "aa" * 20},
    ],
)
def test_a_network_with_a_wrong_field_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(network(), **change)  # type: ignore[arg-type]


def test_a_network_name_cannot_leave_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        resolve_network("..", folder=tmp_path)


# ---- ABIs ----


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_contract_ships_with_its_bytecode(name: str) -> None:
    assert len(load_abi(name).bytecode) > 1000


def test_a_wrong_argument_is_a_typed_error() -> None:
    with pytest.raises(InvalidInput):
        load_abi("Escrow").encode("deposit", -1)
    with pytest.raises(InvalidInput):
        load_abi("Escrow").encode("deposit", 2**256)
    with pytest.raises(InvalidInput):
        load_abi("Escrow").encode("deposit")


@pytest.mark.parametrize("answer", [b"\x01", b"\xff" * 31, b"\xff" * 64])
def test_an_answer_that_does_not_parse_is_a_typed_error(answer: bytes) -> None:
    with pytest.raises(ChainError):
        load_abi("Escrow").decode("tranche", answer)


def test_addresses_in_answers_are_checksummed_at_any_depth() -> None:
    packed = encode(
        ["(address,uint64,uint16,address,uint64,bool,uint128,uint128,bytes32)"], [(A, 1, 2, B, 3, False, 4, 5, H)]
    )
    assert load_abi("Escrow").decode("tranche", packed) == ((A, 1, 2, B, 3, False, 4, 5, H),)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "reverted without a reason"),
        (bytes.fromhex("08c379a0") + encode(["string"], ["too late"]), "too late"),
        (bytes.fromhex("4e487b71") + encode(["uint256"], [0x11]), "panic: arithmetic overflow"),
        (bytes.fromhex("4e487b71") + encode(["uint256"], [0x99]), "panic: 0x99"),
        (b"\xde\xad\xbe\xef", "unknown error 0xdeadbeef"),
        (bytes.fromhex("08c379a0") + b"\x01", "unknown error 0x08c379a001"),
    ],
)
def test_reverts_say_what_they_can(data: bytes, reason: str) -> None:
    assert revert_reason(data) == reason


def test_a_custom_error_is_shown_with_its_arguments() -> None:
    selector = next(s for s, e in load_abi("Escrow").errors.items() if e["name"] == "OverCap")
    data = selector + encode(["bytes32", "address", "uint128", "uint128"], [T, A, 5, 6])
    assert revert_reason(data) == f"OverCap(trancheId=0x{T.hex()}, payee={A}, cap=5, offered=6)"
    assert revert_reason(data[:-1]).startswith("unknown error")


# ---- events ----


def contract_events() -> list[tuple[str, list[tuple[str, str]]]]:
    return [item for name in INDEXED for item in load_abi(name).event_inputs().items()]


@pytest.mark.parametrize(("name", "inputs"), contract_events(), ids=[name for name, _ in contract_events()])
def test_every_event_of_our_contracts_has_its_class_or_is_ignored_on_purpose(
    name: str, inputs: list[tuple[str, str]]
) -> None:
    kind = class_of(name)
    if kind is None:
        assert name in IGNORED
    else:
        assert [f.name for f in fields(kind)] == [field_name(argument) for argument, _ in inputs]


def test_every_class_belongs_to_an_event() -> None:
    assert {class_of(name) for name, _ in contract_events()} - {None} == set(get_args(Event))


def test_a_log_becomes_its_event() -> None:
    topics = [load_abi("Escrow").topic("Deposited"), encode(["address"], [A]), encode(["address"], [B])]
    assert parse(topics, encode(["uint256"], [5])) == on_chain.Deposited(A, B, 5)
    assert parse([b"\x00" * 32], b"") is None
    assert parse([], b"") is None
    with pytest.raises(ChainError):
        parse(topics[:2], encode(["uint256"], [5]))
    with pytest.raises(ChainError):
        parse(topics, b"\x01")


@pytest.mark.parametrize(
    ("field", "value"),
    [("topics", None), ("data", 5), ("blockNumber", "x"), ("blockHash", "0x12"), ("address", "0x"), ("logIndex", None)],
)
def test_a_malformed_log_is_a_typed_error(field: str, value: object) -> None:
    good = {
        "address": A,
        "topics": [],
        "data": "0x",
        "blockNumber": "0x1",
        "blockHash": "0x" + "00" * 32,
        "logIndex": "0x0",
        "transactionHash": "0x" + "00" * 32,
    }
    assert parse_log(good).block_number == 1
    with pytest.raises(ChainError):
        parse_log(good | {field: value})


def test_a_malformed_receipt_is_a_typed_error() -> None:
    with pytest.raises(ChainError):
        parse_receipt({"gasUsed": "0x1"})


# ---- the fold ----

OPENED = on_chain.TrancheOpened(T, A, A, H, 100, 10, 20)


def test_money_moves_between_pots_and_none_is_lost() -> None:
    story = [
        on_chain.Deposited(A, A, 150),
        OPENED,
        on_chain.VoucherRedeemed(T, B, 40, 1, 40, H),
        on_chain.TrancheReclaimed(T, A, 60),
    ]
    state = fold(story)
    assert (state.free, state.payees, state.fees, state.locked) == ({A: 110}, {B: 39}, 1, 0)
    assert state.escrowed == 150
    spent = fold([on_chain.FreeWithdrawn(A, A, 110), on_chain.PayeeWithdrawn(B, B, 39), on_chain.FeesBurned(1)], state)
    assert (spent.free, spent.payees, spent.escrowed) == ({}, {}, 0)
    assert state.claimed == {(T, B): 40}


def test_a_slash_takes_active_stake_first_and_reaches_what_unbonds() -> None:
    node: Address = A
    story: list[Event] = [
        on_chain.NodeRegistered(node, B, b"p", 100),
        on_chain.StakeAdded(node, B, 50),
        on_chain.UnstakeBegun(node, 90, 77),
        on_chain.NodeSlashed(node, 100, B, 1, H),
    ]
    slashed = fold(story).nodes[node]
    assert (slashed.stake, slashed.unbonding, slashed.unbonding_at) == (0, 50, 77)
    after = fold([on_chain.StakeWithdrawn(node, B, 50), on_chain.NodeJailed(node, 9)], fold(story)).nodes[node]
    assert (after.unbonding, after.unbonding_at, after.jailed_until) == (0, 0, 9)
    assert apply(fold(story), on_chain.NodeUnjailed(node)).nodes[node].jailed_until == 0


def test_models_remember_every_version_and_who_owns_the_name() -> None:
    story: list[Event] = [
        on_chain.ModelPublished(H, 1, Hash32(b"\x01" * 32), "m", A),
        on_chain.ModelPublished(H, 2, Hash32(b"\x02" * 32), "m", A),
        on_chain.ModelDeprecated(H, 2),
        on_chain.ModelTransferred(H, A, B),
    ]
    model = fold(story).models[H]
    assert (len(model.roots), model.deprecated, model.owner) == (2, {2}, B)


def test_folding_never_changes_an_older_state() -> None:
    before = fold([on_chain.Deposited(A, A, 5)])
    apply(before, on_chain.Deposited(A, A, 5))
    apply(before, on_chain.SignerRevoked(A, B))
    assert before == fold([on_chain.Deposited(A, A, 5)])
    assert fold([]) == NetworkState()
