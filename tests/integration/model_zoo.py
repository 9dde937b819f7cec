"""Tiny random checkpoints of the architectures we promise, and the plain transformers model each is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

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
    torch.manual_seed(7)
    model: Any = AutoModelForCausalLM.from_config(ZOO[arch](), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(folder, max_shard_size=SHARD)
    return folder


def load_reference(folder: Path) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.eval()
