"""Keys on disk are encrypted, private, never overwritten; public keys stay on devnets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account import Account
from ganache import accounts

from corolla_core.chain.devnet_keys import devnet_signer, known_addresses, refuse_devnet_key
from corolla_core.chain.keystore import account_address, create_account, load_account
from corolla_core.protocol.errors import KeystoreError

FAST = 2


@pytest.fixture
def keyfile(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "node.json"
    create_account(path, "hunter2", kdf="pbkdf2", iterations=FAST)
    return path


def test_a_created_account_loads_with_its_password(keyfile: Path) -> None:
    signer = load_account(keyfile, "hunter2")
    assert signer.address == account_address(keyfile)
    assert Account.decrypt(json.loads(keyfile.read_text()), "hunter2") == signer.secret


def test_the_default_key_derivation_is_scrypt_at_full_strength(tmp_path: Path) -> None:
    create_account(tmp_path / "k.json", "pw")
    crypto = json.loads((tmp_path / "k.json").read_text())["crypto"]
    assert crypto["kdf"] == "scrypt"
    assert crypto["kdfparams"]["n"] >= 2**18


def test_a_wrong_password_is_refused_without_showing_it(keyfile: Path) -> None:
    with pytest.raises(KeystoreError, match="wrong password") as refused:
        load_account(keyfile, "s3cret-guess")
    assert "s3cret-guess" not in str(refused.value)


def test_a_keystore_is_readable_by_its_owner_only(keyfile: Path) -> None:
    assert keyfile.stat().st_mode & 0o777 == 0o600
    keyfile.chmod(0o644)
    with pytest.raises(KeystoreError, match="chmod 600"):
        load_account(keyfile, "hunter2")


def test_creating_an_account_never_overwrites_one(keyfile: Path) -> None:
    before = keyfile.read_bytes()
    with pytest.raises(KeystoreError, match="already there"):
        create_account(keyfile, "other", kdf="pbkdf2", iterations=FAST)
    assert keyfile.read_bytes() == before
    assert [p.name for p in keyfile.parent.iterdir()] == ["node.json"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(KeystoreError):
        create_account(tmp_path / "file" / "k.json", "pw", kdf="pbkdf2", iterations=FAST)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"version": 3}', b'{"version": 3, "crypto": 1}', b'{"version": 9}'],
)
def test_a_damaged_keystore_is_a_typed_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeystoreError):
        load_account(path, "pw")
    with pytest.raises(KeystoreError):
        account_address(path)


def test_a_missing_keystore_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="cannot read"):
        load_account(tmp_path / "none.json", "pw")


def test_devnet_keys_are_refused_off_the_devnets(tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    create_account(path, "pw", secret=devnet_signer(3).secret, kdf="pbkdf2", iterations=FAST)
    assert load_account(path, "pw", chain_id=1337) is not None
    assert load_account(path, "pw", chain_id=31337) is not None
    for chain_id in (1, 10, 137):
        with pytest.raises(KeystoreError, match="devnet account"):
            load_account(path, "pw", chain_id=chain_id)


def test_every_account_ganache_funds_is_known_to_be_public() -> None:
    assert {signer.address for signer in accounts()} <= known_addresses()
    refuse_devnet_key(Account.create().address, 1)
