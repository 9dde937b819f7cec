"""Tiny random checkpoints of the architectures we promise, and the plain transformers model each is compared with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache

from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.front import Front, load_front
from corolla_core.model.head import Head, load_head
from corolla_core.protocol.span import Span

VOCAB, HIDDEN, BLOCKS, SHARD = 96, 32, 4, "24KB"
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_MHA = {k: v for k, v in _COMMON.items() if k not in ("num_key_value_heads", "head_dim")}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}

ZOO: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**_COMMON),
    "llama_tied": lambda: transformers.LlamaConfig(**_COMMON, tie_word_embeddings=True),
    "qwen2": lambda: transformers.Qwen2Config(**_COMMON),
    "qwen3": lambda: transformers.Qwen3Config(**_COMMON, tie_word_embeddings=True),
    "mistral": lambda: transformers.MistralConfig(**_COMMON, sliding_window=6),
    "gemma": lambda: transformers.GemmaConfig(**_COMMON),
    "gemma2": lambda: transformers.Gemma2Config(**_COMMON, sliding_window=6, query_pre_attn_scalar=8),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **_COMMON,
        sliding_window=6,
        query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**_MHA, tie_word_embeddings=False),
    "bloom": lambda: transformers.BloomConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, n_layer=BLOCKS, n_head=4, bos_token_id=1, eos_token_id=2, pad_token_id=0
    ),
    "falcon": lambda: transformers.FalconConfig(
        **_MHA, new_decoder_architecture=True, num_kv_heads=2, alibi=False, bias=False
    ),
    "falcon_alibi": lambda: transformers.FalconConfig(
        **_MHA, new_decoder_architecture=False, multi_query=False, parallel_attn=False, alibi=True, bias=True
    ),
    "mixtral": lambda: transformers.MixtralConfig(**_COMMON, **_EXPERTS),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **_COMMON, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCAB, n_embd=HIDDEN, n_layer=BLOCKS, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2
    ),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        ffn_dim=48,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        max_position_embeddings=128,
        word_embed_proj_dim=HIDDEN,
    ),
    "phi3": lambda: transformers.Phi3Config(**{k: v for k, v in _COMMON.items() if k != "head_dim"}),
    "gpt_oss": lambda: transformers.GptOssConfig(
        **_COMMON, **_EXPERTS, sliding_window=6, layer_types=["sliding_attention", "full_attention"] * 2
    ),
    "cohere": lambda: transformers.CohereConfig(**{k: v for k, v in _COMMON.items() if k != "head_dim"}),
    "olmo2": lambda: transformers.Olmo2Config(**{k: v for k, v in _COMMON.items() if k != "head_dim"}),
}


def save_checkpoint(arch: str, folder: Path) -> Path:
    """A checkpoint of `arch` in several shards, with weights large enough that every part of a block matters."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(7)
        model: Any = AutoModelForCausalLM.from_config(ZOO[arch](), dtype=torch.float32)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(folder, max_shard_size=SHARD)
    return folder


def load_reference(folder: Path) -> Any:
    """The whole model by transformers, its weights moved out of the mapped files: BLAS rounds a product differently
    when its operands are aligned differently, and these are to be compared bit for bit."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    return model.eval()


class Zoo:
    """Checkpoints, references and loaded parts, each made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[Any, Any] = {}

    def folder(self, arch: str) -> Path:
        return self._once((arch, "folder"), lambda: save_checkpoint(arch, self._folder / arch))

    def checkpoint(self, arch: str) -> Checkpoint:
        return self._once((arch, "checkpoint"), lambda: open_checkpoint(str(self.folder(arch))))

    def reference(self, arch: str) -> Any:
        return self._once((arch, "reference"), lambda: load_reference(self.folder(arch)))

    def front(self, arch: str) -> Front:
        return self._once((arch, "front"), lambda: load_front(self.checkpoint(arch)))

    def head(self, arch: str) -> Head:
        return self._once((arch, "head"), lambda: load_head(self.checkpoint(arch)))

    def blocks(self, arch: str, span: Span) -> BlockRange:
        return self._once((arch, span), lambda: load_blocks(self.checkpoint(arch), span))

    def chain(self, arch: str, cuts: Iterable[int] = (), *, batch: int = 1, max_tokens: int = 64) -> Chain:
        """A session over the model cut before each of the blocks `cuts`."""
        edges = [0, *sorted(set(cuts)), BLOCKS]
        parts = [self.blocks(arch, Span(a, b)) for a, b in itertools.pairwise(edges)]
        return Chain(self.front(arch), parts, self.head(arch), batch=batch, max_tokens=max_tokens)

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


class Chain:
    """One session over a client's ends and several block ranges, in one process."""

    def __init__(self, front: Front, parts: list[BlockRange], head: Head, *, batch: int, max_tokens: int) -> None:
        self._front, self._parts, self._head = front, parts, head
        self.caches = [part.new_cache(batch, max_tokens) for part in parts]

    @property
    def length(self) -> int:
        return self.caches[0].length

    def logits(self, ids_BT: torch.Tensor) -> torch.Tensor:
        hidden = self._front.embed(ids_BT, position=self.length)
        for part, cache in zip(self._parts, self.caches, strict=True):
            hidden = part.forward(hidden, cache)
        return self._head.logits(hidden)

    def crop(self, length: int) -> None:
        for cache in self.caches:
            cache.crop(length)

    def reorder(self, indices: list[int]) -> None:
        for cache in self.caches:
            cache.reorder(indices)


class Plain:
    """The same, on the whole model by transformers itself."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference
        self._cache = DynamicCache(config=reference.config)

    def logits(self, ids_BT: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self._reference(ids_BT, past_key_values=self._cache, use_cache=True).logits


def tokens(seed: int, batch: int, count: int) -> torch.Tensor:
    return torch.randint(3, VOCAB, (batch, count), generator=torch.Generator().manual_seed(seed))


def farthest_position_llama(folder: Path) -> BlockRange:
    """Both blocks of a llama whose rotation looks at the farthest position of a pass."""
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=64,
        max_position_embeddings=32,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return load_blocks(open_checkpoint(str(folder)), Span(0, 2))
