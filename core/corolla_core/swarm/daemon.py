"""The libp2p daemon (`p2pd`, from hivemind's wheel) as our own child, which cannot outlive us.

hivemind's `P2P.create` starts it too, but that one survives a `kill -9` of its parent and keeps its parent's pipes.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from corolla_core.protocol.errors import ConfigError, NetworkError

_log = structlog.get_logger(__name__)
_START_SECONDS = 20.0
_STOP_SECONDS = 3.0
_ORPHAN_SECONDS = 60.0
_FOLDER_PREFIX = "corolla-p2p-"

# Runs in the child before p2pd takes its place: on Linux the kernel then kills p2pd when the thread that started it
# ends (prctl(PR_SET_PDEATHSIG = 1, SIGKILL = 9)); a parent that was gone before that is seen by its changed pid.
# `preexec_fn` would do the same, but may deadlock in a process with threads. Elsewhere p2pd ends by its idle timeout
# only if nobody connected to it, so there a killed parent leaves it behind.
_LEASH = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Daemon:
    """A running p2pd. `control` is the multiaddr of its control socket, which only this user can reach."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._reader: asyncio.Task[None] | None = None
        self.control = f"/unix{folder}/p2pd.sock"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    @classmethod
    async def start(
        cls, *, bootstrap: Sequence[str], listen: Sequence[str], identity_path: Path | None, client_mode: bool
    ) -> Daemon:
        """`listen` are multiaddrs; none means that nobody can dial us. Raises NetworkError when it does not start."""
        await asyncio.to_thread(_remove_orphaned_folders)
        folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
        args = _arguments(
            folder, bootstrap=bootstrap, listen=listen, identity_path=identity_path, client_mode=client_mode
        )
        environment = {"GOLOG_LOG_LEVEL": "error", **os.environ, "GOLOG_LOG_FMT": "json"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), str(_executable()), *args),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        self = cls(process, folder)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._wait_ready()
        except TimeoutError:
            await self.stop()
            raise NetworkError(f"p2pd did not start within {_START_SECONDS:.0f} s") from None
        except BaseException:
            await self.stop()
            raise
        self._reader = asyncio.create_task(self._drain_output(), name="p2pd output")
        return self

    async def ended(self) -> None:
        """Returns when p2pd has ended, however it came to that."""
        await self._process.wait()

    async def stop(self) -> None:
        """Ends p2pd and removes its socket. Safe to call twice."""
        if self._reader is not None:
            self._reader.cancel()
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _wait_ready(self) -> None:
        assert self._process.stdout is not None
        last = b""
        while line := await self._process.stdout.readline():
            if line.startswith(b"Peer ID:"):
                return
            last = line
        raise NetworkError(f"p2pd ended: {last.decode(errors='replace').strip():.300}")

    async def _drain_output(self) -> None:
        """Reads what p2pd says, or it would block once the pipe is full."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if line.startswith(b"{"):  # its log; the rest is chatter
                _log.debug("p2pd", output=line.decode(errors="replace")[:500])


def _remove_orphaned_folders() -> None:
    """Removes the sockets of processes that were killed: those a minute old behind which nobody listens."""
    for control in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*/p2pd.sock"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            if time.time() - control.stat().st_mtime < _ORPHAN_SECONDS:
                continue
            probe.settimeout(0.5)
            try:
                probe.connect(str(control))
            except ConnectionRefusedError:
                shutil.rmtree(control.parent, ignore_errors=True)


def _executable() -> Path:
    # Not by importing hivemind, which takes seconds.
    spec = importlib.util.find_spec("hivemind")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("hivemind is not installed")
    return Path(spec.submodule_search_locations[0]) / "hivemind_cli" / "p2pd"


def _arguments(
    folder: Path, *, bootstrap: Sequence[str], listen: Sequence[str], identity_path: Path | None, client_mode: bool
) -> list[str]:
    public = any("/127." not in maddr and "/ip6/::1/" not in maddr for maddr in listen)
    args = [
        f"-listen=/unix{folder}/p2pd.sock",
        "-autonat=1",
        "-connManager=1",
        "-idleTimeout=30s",
        f"-natPortMap={int(public)}",
        "-relay=1",
        "-relayHopLimit=0",
        "-tls=1",
        "-persistentConnMaxMsgSize=4194304",
        "-dhtClient=1" if client_mode else "-dhtServer=1",
        f"-hostAddrs={','.join(listen)}" if listen else "-noListenAddrs=1",
    ]
    if bootstrap:
        args += ["-b=1", f"-bootstrapPeers={','.join(bootstrap)}"]
    if identity_path is not None:
        args.append(f"-id={identity_path}")
    return args
