"""Probes are made by the client itself, run as its own program: what nodes see of one is what they see of a client."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from corolla_core.chain.keystore import create_account
from corolla_core.chain.network import Network
from corolla_core.protocol.errors import ConfigError, ProcessFailed
from corolla_core.protocol.ids import Address, SessionId
from corolla_core.protocol.units import Nectar, nectar_to_text
from corolla_core.store.probes import sessions_in
from corolla_core.store.store import Store

_SECONDS = 900.0
_MOST_OUTPUT = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe got. Tokens are counted by the client, `cost` is in base units."""

    text: str
    prompt_tokens: int
    tokens: int
    cost: Nectar
    nodes: tuple[str, ...]


class ClientProgram:
    """Each account has a home of its own, and with it books, leases and settings of its own, as clients elsewhere do.

    `command` is how the client is run: `corolla`, or behind something that reaches the nodes from another address.
    """

    def __init__(
        self,
        folder: Path,
        network: Network,
        model: str,
        *,
        models: Path,
        raw: bool = False,
        command: str = "",
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`models`: where downloaded checkpoints are kept, for all accounts. `raw`: the model has no chat template.
        Raises ConfigError where there is no such program."""
        self._folder = folder
        self._network = network
        self._model = model
        self._models = models
        self._raw = ["--raw"] if raw else []
        self._command = shlex.split(command) or [installed_client()]
        # The validator's own settings are not a client's.
        self._environ = {name: value for name, value in environ.items() if not name.startswith("COROLLA_")}

    def new_account(self) -> Address:
        """A fresh key in a home of its own. Blocks."""
        draft = self._folder / f"new-{secrets.token_hex(4)}"
        draft.mkdir(parents=True, mode=0o700)
        password = secrets.token_urlsafe(16)
        descriptor = os.open(draft / "password", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password + "\n")
        account = create_account(draft / "keys" / "default.json", password)
        self._models.mkdir(parents=True, exist_ok=True)
        (draft / "models").symlink_to(self._models.absolute())
        self._network.save(draft / "networks")
        draft.rename(self._home(account))
        return account

    async def deposit(self, account: Address, amount: Nectar) -> None:
        """Raises ProcessFailed with what the client said."""
        await self._run(account, ["deposit", nectar_to_text(amount)], "")

    async def generate(self, account: Address, prompt: str, *, max_tokens: int) -> Answer:
        """One answer. What it may cost is bounded by the deposit alone: a spending limit would shrink the caps of the
        tranche, which nodes see. Raises ProcessFailed with what the client said."""
        words = ["generate", "-", f"--model={self._model}", f"--max-tokens={max_tokens}"]
        return _answer(await self._run(account, [*words, *self._raw, "--temperature=0.8"], prompt))

    def sessions(self, account: Address) -> list[SessionId]:
        """All that are in the account's books. Raises StoreError. Blocks."""
        path = self._home(account) / "client" / f"{self._network.chain_id}-{account.lower()}.db"
        if not path.exists():
            return []
        with Store.open(path) as store:
            return sessions_in(store)

    def _home(self, account: Address) -> Path:
        return self._folder / account

    async def _run(self, account: Address, words: Sequence[str], stdin: str) -> bytes:
        home = self._home(account)
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *words,
            f"--network={self._network.name}",
            "--account=default",
            f"--password-file={home / 'password'}",
            "--json",
            cwd=home,
            env={**self._environ, "COROLLA_HOME": str(home)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=_MOST_OUTPUT,
        )
        try:
            async with asyncio.timeout(_SECONDS):
                out, err = await process.communicate(stdin.encode())
        except TimeoutError:
            raise ProcessFailed(f"the client took more than {_SECONDS:g} s", name=words[0]) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            said = err.decode(errors="replace").strip().splitlines() or ["nothing"]
            raise ProcessFailed(said[-1][:500], name=words[0], status=process.returncode)
        return out


def installed_client() -> str:
    """The `corolla` beside this Python, or on the path. Raises ConfigError."""
    beside = Path(sys.executable).parent / "corolla"
    found = str(beside) if beside.exists() else shutil.which("corolla")
    if found is None:
        raise ConfigError("probes are made by the client, and there is no `corolla` here")
    return found


def _answer(out: bytes) -> Answer:
    try:
        made = json.loads(out)
        usage = made["usage"]
        return Answer(
            text=str(made["text"]),
            prompt_tokens=int(usage["prompt_tokens"]),
            tokens=int(usage["tokens"]),
            cost=Nectar(int(usage["cost"])),
            nodes=tuple(str(hop["account"]) for hop in made["route"]),
        )
    except (ValueError, TypeError, KeyError):
        raise ProcessFailed("the client's answer is no JSON of ours", name="generate") from None
