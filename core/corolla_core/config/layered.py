"""Settings in layers: flag > `COROLLA_*` environment > `./corolla.toml` > `<home>/config.toml` > default.

An actor declares its settings once:

    class NodeSettings(LayeredSettings):
        table = "node"
        price: int = 1000

and reads them with `load_settings(NodeSettings, flags={"price": None})`. A flag that is None was not given. In the
environment `COROLLA_NODE_PRICE` (this actor's) beats `COROLLA_PRICE` (everyone's); in a file the table `[node]` beats
the top level in the same way. Every value remembers the layer it came from.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from corolla_core.config.home import home
from corolla_core.protocol.errors import ConfigError

_ENV_PREFIX = "COROLLA_"


class LayeredSettings(BaseSettings):
    """Base of an actor's settings. `table` names its table in the TOML files and its prefix in the environment."""

    table: ClassVar[str] = ""
    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=_ENV_PREFIX, protected_namespaces=())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load_settings` merges the layers itself, because it must remember which one each value came from.
        return (init_settings,)


S = TypeVar("S", bound=LayeredSettings)


@dataclass(frozen=True, slots=True)
class Sourced:
    """One setting as `config show` prints it."""

    name: str
    value: object
    source: str


@dataclass(frozen=True, slots=True)
class Loaded(Generic[S]):
    """Validated settings, and the layer each value came from (`flag`, `COROLLA_X`, a file's path, `default`)."""

    settings: S
    sources: Mapping[str, str]

    def table(self) -> list[Sourced]:
        return [
            Sourced(name, getattr(self.settings, name), self.sources.get(name, "default"))
            for name in type(self.settings).model_fields
        ]


def load_settings(
    kind: type[S],
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
) -> Loaded[S]:
    """Merge the layers. Raises ConfigError, naming the setting and the layer it came from, for any bad value."""
    layers = [
        *_flag_layer(flags or {}),
        *_env_layers(kind, environ),
        *_file_layers(kind, (cwd or Path.cwd()) / "corolla.toml"),
        *_file_layers(kind, home(environ) / "config.toml"),
    ]
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for name, source, value in layers:
        if name not in values:
            values[name], sources[name] = value, source
    try:
        return Loaded(kind(**values), sources)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else kind.__name__
        raise ConfigError(f"{name}: {first['msg']} (from {sources.get(name, 'default')})") from None


_Layer = list[tuple[str, str, object]]


def _flag_layer(flags: Mapping[str, object]) -> _Layer:
    return [(name, "flag", value) for name, value in flags.items() if value is not None]


def _env_layers(kind: type[LayeredSettings], environ: Mapping[str, str]) -> _Layer:
    prefixes = [f"{_ENV_PREFIX}{kind.table.upper()}_", _ENV_PREFIX] if kind.table else [_ENV_PREFIX]
    found: _Layer = []
    for prefix in prefixes:
        source = EnvSettingsSource(kind, env_prefix=prefix)
        source.env_vars = {name.lower(): value for name, value in environ.items()}
        try:
            values = source()
        except SettingsError as error:
            raise ConfigError(f"environment: {error}") from None
        found += [
            (name, f"{prefix}{name.upper()}", value) for name, value in values.items() if name in kind.model_fields
        ]
    return found


def _file_layers(kind: type[LayeredSettings], path: Path) -> _Layer:
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    own = content.get(kind.table, {}) if kind.table else {}
    if not isinstance(own, dict):
        raise ConfigError(f"{path}: [{kind.table}] is not a table")
    unknown = sorted(set(own) - set(kind.model_fields))
    if unknown:
        raise ConfigError(f"{path}: [{kind.table}] has no setting {', '.join(unknown)}")
    shared = {name: value for name, value in content.items() if name in kind.model_fields}
    return [(name, str(path), value) for layer in (own, shared) for name, value in layer.items()]
