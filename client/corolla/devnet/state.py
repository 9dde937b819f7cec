"""What a running devnet leaves in `<home>/devnet/state.json`, so that any later process can find and stop it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from corolla.devnet.process import ChildRecord
from corolla_core.protocol.errors import ConfigError

_FILE = "state.json"


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node of the devnet: who it is and what it serves."""

    name: str
    account: str
    keystore: str
    span: str
    home: str


@dataclass(frozen=True, slots=True)
class DevnetState:
    """Everything a client or an operator needs: the network file, the model, the funded account, the processes."""

    network: str
    rpc_url: str
    model: str
    client_account: str
    client_keystore: str
    password_file: str
    nodes: tuple[NodeRecord, ...]
    children: tuple[ChildRecord, ...]

    def save(self, folder: Path) -> None:
        """Replace the file at once: a reader never sees half of it."""
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / (_FILE + ".new")
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(folder / _FILE)

    @classmethod
    def load(cls, folder: Path) -> DevnetState | None:
        """The state in `folder`, None where there is none. Raises ConfigError if it is unreadable."""
        path = folder / _FILE
        try:
            raw = json.loads(path.read_text())
            return cls(
                **{
                    **raw,
                    "nodes": tuple(NodeRecord(**node) for node in raw["nodes"]),
                    "children": tuple(ChildRecord(**child) for child in raw["children"]),
                }
            )
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{path} is not a devnet's state: {error}") from None

    @classmethod
    def running_in(cls, folder: Path) -> list[str]:
        """The names of the processes of the devnet in `folder` that still run."""
        state = cls.load(folder)
        return [child.name for child in state.running()] if state else []

    @staticmethod
    def forget(folder: Path) -> None:
        (folder / _FILE).unlink(missing_ok=True)

    def running(self) -> list[ChildRecord]:
        return [child for child in self.children if child.running()]
