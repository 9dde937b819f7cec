"""The client's own share of the model: tokenizer, embeddings, head, and any blocks it keeps to itself. All of its torch
work runs on one thread."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import torch
from jinja2 import TemplateError
from torch import Tensor

from corolla.compute import ComputeThread
from corolla.ends import Ends
from corolla.grammar import Grammar
from corolla.policy import NO_BLOCKS
from corolla.tool_prompt import told_of_tools
from corolla.values import Conversation, Prompt
from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.cache import rolls_back
from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.front import load_front
from corolla_core.model.head import load_head
from corolla_core.model.manifest import Manifest
from corolla_core.model.sampling import Constraint, SamplingParams, StopWatcher
from corolla_core.model.tensors import onto_wire, wire_dtype
from corolla_core.protocol.errors import InvalidInput, UnsupportedModel
from corolla_core.protocol.ids import Hash32, ModelRoot
from corolla_core.protocol.span import Span

P = ParamSpec("P")
T = TypeVar("T")


class LocalModel:
    """Everything but `run` is for the compute thread (`await model.run(model.embed, …)`), plain attributes excepted."""

    def __init__(
        self,
        *,
        checkpoint: Checkpoint,
        manifest: Manifest,
        wire: str = "float32",
        local_blocks: tuple[int, int] = NO_BLOCKS,
    ) -> None:
        """Reads the weights of the front and the head, and of so many first and last blocks. Raises ModelError, its
        UnsupportedModel for blocks that cannot be kept here, and TensorRejected for no wire dtype."""
        wire_dtype(wire)
        middle = remote_span(checkpoint.num_blocks, local_blocks)
        if any(local_blocks) and not rolls_back(checkpoint.text_config):
            raise UnsupportedModel(f"{manifest.name} keeps a state that cannot be rolled back: no local blocks")
        self.name = manifest.name
        self.manifest = manifest
        self.num_blocks = checkpoint.num_blocks
        self.hidden_size = checkpoint.hidden_size
        self.eos_ids = frozenset(checkpoint.eos_token_ids)
        self.context = int(getattr(checkpoint.text_config, "max_position_embeddings", 0) or 0)
        self.rolls_back = rolls_back(checkpoint.text_config)
        self.tokenizer: Any = checkpoint.tokenizer()
        self._front = load_front(checkpoint, manifest=manifest)
        self._head = load_head(checkpoint, manifest=manifest)
        self._first = _blocks(checkpoint, manifest, Span(0, middle.start)) if middle.start else None
        last = checkpoint.num_blocks - middle.end
        self._last = _blocks(checkpoint, manifest, Span(middle.end, checkpoint.num_blocks)) if last else None
        self._grammar: Grammar | None = None
        self._wire = wire
        self._thread = ComputeThread("corolla-model")

    @property
    def root(self) -> ModelRoot:
        return self.manifest.root

    def weight_root(self, span: Span) -> Hash32:
        """What nodes that serve `span` must state."""
        return self.manifest.weight_root(span)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(*args, **kwargs)` on the compute thread."""
        return await self._thread.run(functools.partial(work, *args, **kwargs))

    def close(self) -> None:
        self._thread.close()

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Token ids of a text as it is, or of a conversation through the model's chat template. Raises InvalidInput."""
        if isinstance(prompt, str):
            ids = list(self.tokenizer(prompt).input_ids)
        elif isinstance(prompt, Conversation):
            ids = self._chat_ids(list(prompt.messages), list(prompt.tools))
        elif all(isinstance(each, int) for each in prompt):
            ids = cast(list[int], list(prompt))
            if not all(0 <= each < self._front.vocab_size for each in ids):
                raise InvalidInput(f"token ids are from 0 to {self._front.vocab_size - 1}")
        else:
            ids = self._chat_ids(cast(list[Mapping[str, Any]], list(prompt)), [])
        if not ids:
            raise InvalidInput("an empty prompt")
        return ids

    def ends(self, batch: int, max_tokens: int) -> Ends:
        """What a session of this size computes here."""
        return Ends(self, self._first, self._last, batch=batch, max_tokens=max_tokens)

    def embed(self, ids_BT: Sequence[Sequence[int]], position: int) -> Tensor:
        """Embedded tokens `[B, T, D]` as they travel where no block is kept here."""
        return self.travelling(self.front(ids_BT, position))

    def front(self, ids_BT: Sequence[Sequence[int]], position: int) -> Tensor:
        """What the first block takes, `[B, T, D]`."""
        return self._front.embed(torch.tensor(ids_BT, dtype=torch.int64), position=position)

    def travelling(self, hidden_BTD: Tensor) -> Tensor:
        """Hidden states as they travel."""
        return onto_wire(hidden_BTD, self._wire)

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Logits `[B, V]` of the last position."""
        return self.all_logits(hidden_BTD[:, -1:])[:, -1]

    def all_logits(self, hidden_BTD: Tensor) -> Tensor:
        """Logits `[B, T, V]` of every position."""
        return self._head.logits(hidden_BTD)

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def watcher(self, stop: Sequence[str]) -> StopWatcher:
        return StopWatcher(self.tokenizer, stop)

    def constraint(self, params: SamplingParams) -> Constraint | None:
        """What keeps a text to its schema. Raises InvalidInput for a schema that cannot be kept to."""
        if params.json_schema is None:
            return None
        if self._grammar is None:
            self._grammar = Grammar(self.tokenizer, vocab_size=self._front.vocab_size, eos_ids=self.eos_ids)
        return self._grammar.constraint(params.json_schema)

    def _chat_ids(self, messages: list[Mapping[str, Any]], tools: list[Mapping[str, Any]]) -> list[int]:
        if not getattr(self.tokenizer, "chat_template", None):
            raise UnsupportedModel(f"{self.name} has no chat template: give it plain text")
        for message in messages:
            if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
                raise InvalidInput("a message has a role and a content")
        if "tools" not in self.tokenizer.chat_template:
            messages, tools = told_of_tools(messages, tools), []
        try:
            encoded = self.tokenizer.apply_chat_template(
                messages, tools=tools or None, add_generation_prompt=True, tokenize=True, return_dict=True
            )
        except TemplateError as error:
            raise InvalidInput(f"messages that the model's chat template does not take: {error}") from None
        return list(encoded["input_ids"])


def remote_span(num_blocks: int, local_blocks: tuple[int, int]) -> Span:
    """The blocks that nodes serve where so many first and last ones are kept here. Raises UnsupportedModel when none is
    left."""
    first, last = local_blocks
    if first < 0 or last < 0 or first + last >= num_blocks:
        raise UnsupportedModel(f"{first} first and {last} last of {num_blocks} blocks leave nothing for the network")
    return Span(first, num_blocks - last)


def _blocks(checkpoint: Checkpoint, manifest: Manifest, span: Span) -> BlockRange:
    return load_blocks(checkpoint, span, manifest=manifest)


def load_local(
    ref: str,
    *,
    expected_root: ModelRoot | None = None,
    wire: str = "float32",
    local_blocks: tuple[int, int] = NO_BLOCKS,
) -> LocalModel:
    """The client's share of the checkpoint `ref`. Raises ModelError when it is not the version `expected_root`."""
    checkpoint = open_checkpoint(ref)
    manifest = Manifest.beside(checkpoint)
    if expected_root is not None and manifest.root != expected_root:
        raise UnsupportedModel(f"{ref} is another version of {manifest.name} than the network serves")
    return LocalModel(checkpoint=checkpoint, manifest=manifest, wire=wire, local_blocks=local_blocks)


def checkpoint_ref(model: str, *, models_dir: Path) -> tuple[str | None, str]:
    """`(name, checkpoint)` of what a user calls a model: a name whose checkpoint is in `models_dir`, or a checkpoint
    (a directory, `hf:org/name`, a URL) whose manifest states the name."""
    if "/" in model or model.startswith((".", "~", "hf:")) or Path(model).is_dir():
        return None, model
    return model, str(models_dir / model)
