"""`node up`, `status` and `down` as processes on a devnet: blocks chosen, weights checked, one node a folder."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import psutil
import pytest
from model_zoo import save_checkpoint

from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla.devnet.node import installed
from corolla.devnet.process import Child
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.manifest import build_manifest
from corolla_core.model.source import MANIFEST_FILE
from corolla_core.protocol.span import Span

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_checkpoint("llama", tmp_path_factory.mktemp("model") / "tiny-llama")
    (folder / MANIFEST_FILE).write_text(build_manifest(open_checkpoint(str(folder))).to_json())
    return folder


class Operator:
    """Somebody with an account, a home of their own, and the command line."""

    def __init__(self, devnet: Devnet, home: Path, keystore: Path) -> None:
        self.env = os.environ | {"COROLLA_HOME": str(home), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
        self.home = home
        self.up_command = (
            f"--network={devnet.network_file}",
            f"--account={keystore}",
            f"--password-file={devnet.password_file}",
            "--json",
        )

    def start(self, *command: str) -> Child:
        return Child.start(
            "node", [installed("corolla-node"), "up", *command, *self.up_command], folder=self.home, env=self.env
        )

    async def run(self, *command: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            installed("corolla-node"),
            *command,
            env=self.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


def flip_a_bit(folder: Path) -> None:
    """The least significant bit of one weight of the first block."""
    checkpoint = open_checkpoint(str(folder))
    entry = checkpoint.entry(next(name for name in checkpoint.tensor_names if ".0." in name))
    content = bytearray((folder / entry.file).read_bytes())
    content[entry.start] ^= 1
    (folder / entry.file).write_bytes(content)


async def test_a_node_from_up_to_down(model: Path, tmp_path: Path) -> None:
    total = open_checkpoint(str(model)).num_blocks
    first_half, second_half = Span(0, total // 2), Span(total // 2, total)
    async with Devnet(DevnetPlan(model=str(model), spans=(first_half,)), home=tmp_path / "net") as devnet:
        account = await devnet.new_account("operator")
        operator = Operator(devnet, tmp_path / "operator", account.keystore)

        # It takes what the swarm lacks, in one piece.
        node = operator.start(str(model), "--blocks=auto", f"--max-blocks={len(second_half)}", "--dtype=int8")
        ready = await node.wait_event("event", "ready", within=120)
        assert ready["span"] == str(second_half)
        assert ready["account"] == account.signer.address
        p2pd = psutil.Process(node.pid).children()
        assert p2pd

        # It is the only one in its folder, and says how it is.
        code, out, error = await operator.run("up", str(model), *operator.up_command)
        assert (code, out) == (2, "")
        assert f"pid {node.pid}" in error
        code, out, _ = await operator.run("status", "--json")
        status = json.loads(out)
        assert (code, status["state"], status["pid"], status["port"]) == (0, "online", node.pid, ready["port"])
        assert status["throughput"] > 0
        assert (status["device"], status["dtype"]) == ("cpu", "int8")

        # Killed, it leaves nothing behind that keeps it from coming up again.
        node.kill()
        await node.wait(within=10)
        _, still = await asyncio.to_thread(psutil.wait_procs, p2pd, timeout=10)
        assert still == []
        assert json.loads((await operator.run("status", "--json"))[1])["running"] is False

        # Weights that are not the network's are not served.
        spoiled = tmp_path / "spoiled"
        shutil.copytree(model, spoiled)
        flip_a_bit(spoiled)
        code, out, error = await operator.run("up", str(spoiled), f"--blocks=0:{total}", *operator.up_command)
        assert (code, out) == (1, "")
        assert "WeightsCorrupt" in error
        (spoiled / MANIFEST_FILE).write_text(build_manifest(open_checkpoint(str(spoiled)), name=model.name).to_json())
        code, out, error = await operator.run("up", str(spoiled), *operator.up_command)
        assert (code, out) == (1, "")
        assert "the network's is" in error

        # Without its p2pd nobody can find it: it leaves in order and says why, for its supervisor to start it anew.
        node = operator.start(str(model), f"--blocks={first_half}")
        await node.wait_event("event", "ready", within=120)
        (p2pd_alone,) = psutil.Process(node.pid).children()
        p2pd_alone.kill()
        assert await node.wait(within=30) == 1
        assert "nobody finds this node" in node.log.read_text()
        code, out, _ = await operator.run("status", "--json")
        assert (code, json.loads(out)["state"]) == (1, "stopped")

        # Told to go, it goes, and its last status says so.
        node = operator.start(str(model), f"--blocks={first_half}")
        again = await node.wait_event("event", "ready", within=120)
        assert again["peer_id"] == ready["peer_id"]
        assert (await operator.run("down", "--drain"))[0] == 0
        assert await node.wait(within=10) == 0
        code, out, _ = await operator.run("status", "--json")
        assert (code, json.loads(out)["state"]) == (1, "stopped")

        # Neither is arithmetic that the network does not admit.
        code, out, error = await operator.run("up", str(model), "--dtype=bfloat16", *operator.up_command)
        assert (code, out) == (1, "")
        assert "admits fp32, int8" in error
