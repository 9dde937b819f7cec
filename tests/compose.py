"""What `deploy/` would run: the command line and environment of each service, as the files say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


def entrypoints() -> dict[str, list[str]]:
    """The image that each target of the Dockerfile becomes, and what it starts."""
    stages = re.split(r"^FROM .* AS ", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    found = {}
    for stage in stages:
        entry = re.search(r"^ENTRYPOINT (\[.*\])$", stage, flags=re.MULTILINE)
        if entry is not None:
            found["corolla-" + stage.split(maxsplit=1)[0]] = json.loads(entry[1])
    return found


def ours() -> dict[str, list[str]]:
    """The command line of each service that runs our image."""
    images = entrypoints()
    return {
        name: [*service.get("entrypoint", images[service["image"]]), *service["command"]]
        for name, service in services().items()
        if service["image"] in images
    }


def unit_commands() -> dict[str, list[str]]:
    """The command line of each systemd unit, its program without the path."""
    found = {}
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        started = re.search(r"^ExecStart=(.*)$", unit.read_text(), flags=re.MULTILINE)
        assert started is not None
        program, *arguments = started[1].split()
        found[unit.name] = [Path(program).name, *arguments]
    return found
