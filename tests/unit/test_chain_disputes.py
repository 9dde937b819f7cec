"""The jury's values: networks from before it, and terms that end a dispute before stake can leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla_core.chain.deploy import Terms
from corolla_core.chain.disputes import Vote, new_salt, seal
from corolla_core.chain.network import Network
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.ids import ZERO_ADDRESS, Address, Hash32

ONE = Address("0x5FbDB2315678afecb367f032d93F642f64180aa3")
TWO = Address("0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512")
NETWORK = Network("old", 1337, "http://127.0.0.1:8545", ONE, ONE, ONE, ONE)


def test_a_network_file_from_before_the_jury_still_loads(tmp_path: Path) -> None:
    path = NETWORK.save(tmp_path)
    fields = json.loads(path.read_bytes())
    assert fields.pop("disputes") == ZERO_ADDRESS
    path.write_text(json.dumps(fields))
    assert Network.load(path) == NETWORK
    with_jury = replace(NETWORK, disputes=TWO)
    assert Network.load(with_jury.save(tmp_path)) == with_jury


def test_the_jurys_address_is_checked_as_the_others_are() -> None:
    with pytest.raises(ConfigError, match="checksummed"):
        replace(NETWORK, disputes=Address(TWO.lower()))


@given(delay=st.integers(45, 10**6), audit=st.integers(1, 30), jurors=st.integers(13, 10**6))
def test_a_dispute_of_default_length_is_over_before_stake_can_leave(delay: int, audit: int, jurors: int) -> None:
    parameters = Terms(audit_window=audit, juror_unbonding=jurors).dispute_parameters(delay)
    jury = parameters.draw_period + parameters.commit_period + parameters.reveal_period
    longest = 3 * jury + 2 * parameters.appeal_period
    assert longest < min(delay - audit, jurors)
    assert parameters.draw_period >= 1


def test_a_sealed_vote_says_nothing_and_differs_for_every_juror_round_and_dispute() -> None:
    salt = Hash32(b"\x01" * 32)
    one = seal(1, 0, ONE, Vote.FAULTY, salt)
    others = {
        seal(2, 0, ONE, Vote.FAULTY, salt),
        seal(1, 1, ONE, Vote.FAULTY, salt),
        seal(1, 0, TWO, Vote.FAULTY, salt),
        seal(1, 0, ONE, Vote.CORRECT, salt),
        seal(1, 0, ONE, Vote.FAULTY, new_salt()),
    }
    assert len(others) == 5
    assert one not in others
