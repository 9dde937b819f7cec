"""`corolla account new|show|import`: keys live in keystores, and in no flag."""

from __future__ import annotations

import sys
from getpass import getpass
from typing import Annotated

import typer

from corolla.cli.context import DEFAULT_ACCOUNT, JsonOption, PasswordOption, settings_of
from corolla_core.config import home, keystore_path
from corolla_core.config.terminal import emit, errors, read_password
from corolla_core.protocol.errors import InvalidInput, KeystoreError

app = typer.Typer(help="Keys, in password-protected files.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="A name in <home>/keys, or a path.")]


@app.command()
def new(name: Name = DEFAULT_ACCOUNT, password_file: PasswordOption = None, as_json: JsonOption = False) -> None:
    """Make a new key. Back its file up: nobody else has it."""
    with errors():
        _create(name, password_file, None, as_json=as_json)


@app.command("import")
def import_(name: Name = DEFAULT_ACCOUNT, password_file: PasswordOption = None, as_json: JsonOption = False) -> None:
    """Encrypt an existing private key, read as hex from stdin or typed unseen."""
    with errors():
        typed = getpass("private key (hex): ") if sys.stdin.isatty() else sys.stdin.readline()
        try:
            secret = bytes.fromhex(typed.strip().removeprefix("0x"))
        except ValueError:
            raise InvalidInput("a private key is 64 hex digits") from None
        if len(secret) != 32:
            raise InvalidInput("a private key is 64 hex digits")
        _create(name, password_file, secret, as_json=as_json)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="One account; all in <home>/keys without it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Addresses of accounts; asks for no password."""
    with errors():
        from corolla_core.chain.keystore import account_address

        paths = [keystore_path(name)] if name is not None else sorted((home() / "keys").glob("*.json"))
        if name is not None and not paths[0].exists():
            raise KeystoreError(f"no account at {paths[0]}")
        emit(
            [{"name": path.stem, "address": account_address(path), "keystore": str(path)} for path in paths],
            as_json=as_json,
        )


def _create(name: str, password_file: PasswordOption, secret: bytes | None, *, as_json: bool) -> None:
    from corolla_core.chain.keystore import create_account

    path = keystore_path(name)
    if path.exists():
        raise KeystoreError(f"{path} is already there")
    chosen = settings_of(password_file=password_file).settings.password_file
    address = create_account(path, read_password(chosen, path, twice=True), secret=secret)
    emit({"address": address, "keystore": str(path)}, as_json=as_json)
