"""`validator run` as a process on a chain where nothing else happens: it stakes for a voice, and says what it knows."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from books import receipt, session_id
from ganache import Ganache
from signed_sessions import strict, tiny_llama

from corolla.devnet.node import installed
from corolla.devnet.process import Child
from corolla_core.chain.account import Call
from corolla_core.chain.deploy import ScoreTerms, Terms, deploy_all
from corolla_core.chain.keystore import create_account, load_account
from corolla_core.chain.registry import Registry
from corolla_core.chain.reputation import Reputation
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.model.calibrated import Calibrated
from corolla_core.model.manifest import build_manifest
from corolla_core.model.source import MANIFEST_FILE
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.reputation import SCORE_ONE
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import ONE_NECTAR, Nectar, UnixTime, Wei
from corolla_core.protocol.verdict import Outcome, Statistics, Verdict
from corolla_core.store.store import Store
from corolla_core.store.validator_store import AuditRecord, ValidatorStore
from corolla_validator.voice import PEER_ID

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(280)]

PHASE = 12
FAILED = 25


def remember_failures(books: Path, node: str) -> None:
    """So many failed sessions of a node: more than its probation, whatever it was paid."""
    with Store.open(books) as store:
        for session in range(1, FAILED + 1):
            head = receipt(session=session).receipt.hash()
            nothing = Hash32(bytes(32))
            ValidatorStore(store).record_audit(
                AuditRecord(
                    evidence=head,
                    node=node,  # type: ignore[arg-type]
                    session=session_id(session),
                    head=head,
                    span=Span(0, 2),
                    # one input, failed again and again: no ground for a dispute, which is not what this is about
                    input_digest=nothing,
                    beacon=nothing,
                    calibration=nothing,
                    statistics=Statistics(16, 1.0),
                    verdict=Verdict(Outcome.FAILED),
                    audited_at=UnixTime(int(time.time())),
                )
            )


async def test_a_validator_alone_on_a_chain_that_stands_still_registers_publishes_and_settles(
    ganache: Ganache, tmp_path: Path
) -> None:
    checkpoint = tiny_llama(tmp_path / "model")
    manifest = build_manifest(checkpoint)
    (tmp_path / "model" / MANIFEST_FILE).write_text(manifest.to_json())
    calibration = tmp_path / "calibration.json"
    calibration.write_text(Calibrated(manifest.name, strict(manifest, [Span(0, 2)]), {}).to_json())
    network = await deploy_all(
        ganache.url, ganache.accounts[0], terms=Terms(scores=ScoreTerms(PHASE, PHASE)), name="test"
    )
    password = tmp_path / "password"
    password.write_text("secret\n")
    create_account(tmp_path / "key.json", "secret", kdf="pbkdf2", iterations=1000)
    me = load_account(tmp_path / "key.json", "secret").address
    bad = ganache.accounts[5].address
    (tmp_path / "books").mkdir()
    remember_failures(tmp_path / "books" / "books.db", bad)
    async with await Chain.connect(network) as chain:
        faucet = TransactionSender(chain, ganache.accounts[0])
        await faucet.send(Call(me, b"", value=Wei(10**18), about="gas money"))
        await Token(chain, faucet).mint(me, Nectar(1_000 * ONE_NECTAR))
        command = [
            installed("validator"),
            "run",
            f"--model={tmp_path / 'model'}",
            f"--network={network.save(tmp_path)}",
            f"--calibration={calibration}",
            f"--account={tmp_path / 'key.json'}",
            f"--password-file={password}",
            f"--data-dir={tmp_path / 'books'}",
            "--json",
        ]
        process = Child.start(
            "validator", command, folder=tmp_path, env=os.environ | {"COROLLA_HOME": str(tmp_path)}, detached=False
        )
        try:
            await process.wait_event("event", "ready", within=120)
            record = await Registry(chain).node(me)
            assert (record.peer_id, record.stake, record.active) == (PEER_ID, 100 * ONE_NECTAR, True)
            settled = await process.wait_event("event", "scores settled", within=100)
            assert settled["nodes"] == [bad]
            found = await Reputation(chain).settled(bad)
            assert found is not None
            assert (found.epoch, found.ratings) == (settled["epoch"], 1)
            assert found.score < SCORE_ONE // 100
            assert await Reputation(chain).missed(me) == 0
        finally:
            await process.stop(grace=20.0)
        assert not [event for event in process.events() if event.get("event") == "trouble"]
