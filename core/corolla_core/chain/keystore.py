"""Keys on disk: Ethereum keystore V3 files of mode 600."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Literal

from eth_account import Account

from corolla_core.chain.devnet_keys import refuse_devnet_key
from corolla_core.protocol.errors import InvalidInput, KeystoreError
from corolla_core.protocol.ids import Address, address
from corolla_core.protocol.signature import Signer

Kdf = Literal["scrypt", "pbkdf2"]
_MAX_FILE_BYTES = 64 * 1024


def create_account(
    path: Path, password: str, *, secret: bytes | None = None, kdf: Kdf = "scrypt", iterations: int | None = None
) -> Address:
    """Encrypt a new key (or `secret`) into `path`; returns its address.

    Never overwrites: KeystoreError if anything is there. The file appears whole, mode 600, or not at all.
    `iterations` is for tests; the default of each kdf is what makes guessing the password slow.
    """
    signer = Signer(secret or secrets.token_bytes(32))
    content = json.dumps(Account.encrypt(signer.secret, password, kdf=kdf, iterations=iterations))
    _write_new(path, content.encode())
    return signer.address


def load_account(path: Path, password: str, *, chain_id: int | None = None) -> Signer:
    """Decrypt the key in `path`.

    Raises KeystoreError when the password is wrong, the file is missing, damaged or readable by others, or the key is
    a devnet's and `chain_id` is given and no devnet.
    """
    content = _read_private(path)
    try:
        signer = Signer(bytes(Account.decrypt(content, password)))
    except ValueError as error:
        wrong = "MAC mismatch" in str(error)
        raise KeystoreError(f"wrong password for {path}" if wrong else f"{path} is not a V3 keystore") from None
    except (KeyError, TypeError, AttributeError, NotImplementedError, InvalidInput):
        raise KeystoreError(f"{path} is not a V3 keystore") from None
    if chain_id is not None:
        refuse_devnet_key(signer.address, chain_id)
    return signer


def account_address(path: Path) -> Address:
    """Whose key is in `path`, without the password. Raises KeystoreError."""
    stated = _read_private(path).get("address")
    if not isinstance(stated, str):
        raise KeystoreError(f"{path} does not say whose key it holds")
    return address(stated if stated.startswith("0x") else f"0x{stated}")


def _read_private(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise KeystoreError(f"others can read {path}: chmod 600 it")
            content = json.loads(file.read(_MAX_FILE_BYTES))
    except OSError as error:
        raise KeystoreError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise KeystoreError(f"{path} is not a V3 keystore") from None
    if not isinstance(content, dict):
        raise KeystoreError(f"{path} is not a V3 keystore")
    return content


def _write_new(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # unlike rename, fails if something is there
        finally:
            temporary.unlink()
    except FileExistsError:
        raise KeystoreError(f"{path} is already there") from None
    except OSError as error:
        raise KeystoreError(f"cannot write {path}: {error.strerror}") from None
