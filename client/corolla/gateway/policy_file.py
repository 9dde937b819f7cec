"""A gateway's policy as TOML: its backends in order of preference, and the limits under which each is used.

[[backend]]
name = "hospital"
kind = "private"               # a private swarm
network = "hospital.json"      # a network's name or file
model = "smollm2-135m-instruct"

[[backend]]
name = "swarm"
kind = "swarm"                 # the network and model that the gateway was started with
most_cost = "0.05"             # whole tokens, of one text
most_wait = 3.0                # seconds to the first token, as observed

[[backend]]
name = "elsewhere"
kind = "openai"
base_url = "https://api.example.com/v1"
key_env = "EXAMPLE_API_KEY"
models = { "smollm2-135m-instruct" = "their-name-for-it" }
price = { prompt = "0.5", completion = "1.5" }    # whole tokens for a million
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError

from corolla.gateway.policy import Conditions
from corolla.gateway.upstream import Price, Upstream
from corolla_core.protocol.errors import ConfigError, InvalidInput
from corolla_core.protocol.units import nectar_from_text


def _amount(text: str) -> str:
    try:
        nectar_from_text(text)
    except InvalidInput as error:
        raise ValueError(str(error)) from None
    return text


Amount = Annotated[str, AfterValidator(_amount)]
ModelName = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Backend(_Strict):
    # It goes into a header.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,40}$")]
    most_cost: Amount | None = None
    most_wait: Annotated[float, Field(gt=0)] | None = None

    def conditions(self, *, private: bool) -> Conditions:
        return Conditions(
            private=private,
            most_cost=None if self.most_cost is None else nectar_from_text(self.most_cost),
            most_wait=self.most_wait,
        )


class SwarmEntry(_Backend):
    """The swarm that the gateway was started for."""

    kind: Literal["swarm"]


class PrivateEntry(_Backend):
    """A private swarm: a network of its own, and the account that pays there (the gateway's without one)."""

    kind: Literal["private"]
    network: ModelName
    model: ModelName
    account: str | None = None
    password_file: Annotated[Path, Strict(False)] | None = None


class PriceEntry(_Strict):
    prompt: Amount
    completion: Amount

    def price(self) -> Price:
        return Price(nectar_from_text(self.prompt), nectar_from_text(self.completion))


class OpenAIEntry(_Backend):
    """An OpenAI-compatible endpoint. Its key is in the environment variable `key_env`; no key without one."""

    kind: Literal["openai"]
    base_url: Annotated[str, Field(pattern=r"^https?://")]
    key_env: str | None = None
    models: Annotated[dict[ModelName, ModelName], Field(min_length=1)]
    price: PriceEntry

    def upstream(self, http: httpx.AsyncClient, environ: Mapping[str, str] = os.environ) -> Upstream:
        """Raises ConfigError where the key is not there."""
        if self.key_env is not None and not environ.get(self.key_env):
            raise ConfigError(f"backend {self.name}: the environment has no {self.key_env}")
        key = None if self.key_env is None else environ[self.key_env]
        return Upstream(self.base_url, key=key, models=self.models, price=self.price.price(), http=http)


Entry = Annotated[SwarmEntry | PrivateEntry | OpenAIEntry, Field(discriminator="kind")]


class PolicyFile(_Strict):
    backend: Annotated[list[Entry], Field(min_length=1)]


def read_policy(path: Path) -> PolicyFile:
    """Raises ConfigError, naming what is wrong and where."""
    try:
        return PolicyFile.model_validate(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def upstream_http() -> httpx.AsyncClient:
    """As many connections as there are streams: how many run is decided by admission."""
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=None, max_keepalive_connections=32))
