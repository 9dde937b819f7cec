"""Sessions as nodes sign them, honest or not, without a swarm: rows computed by a span, or by whatever a cheat does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.model.tensors import to_wire
from corolla_core.protocol.ids import ZERO_HASH, Hash32, SessionId
from corolla_core.protocol.receipt import NumericClass, Receipt, WireDtype, rows_root
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.transcript import Entry
from corolla_core.protocol.verdict import PICO, Calibration, Thresholds

HIDDEN = 32
Compute = Callable[[Tensor], Tensor]
"""A whole session's inputs [1, T, D] to its outputs."""


def signer(name: str) -> Signer:
    return Signer(sha256(name.encode()).digest())


def tiny_llama(folder: Path) -> Checkpoint:
    """Four blocks with random weights; what is judged here is the plumbing, not noise."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return open_checkpoint(str(folder))


def strict(manifest: Manifest, spans: Sequence[Span]) -> Calibration:
    """Float32 over a float32 wire, as protocol.md has it: flag above 1e-5."""
    return Calibration.of(
        manifest.root, [Thresholds(NumericClass.FP32, "float32", span, PICO // 100_000) for span in spans]
    )


def inputs(seed: int, tokens: int = 40) -> Tensor:
    return torch.randn(1, tokens, HIDDEN, generator=torch.Generator().manual_seed(seed))


def session(
    node: Signer,
    manifest: Manifest,
    span: Span,
    inputs_BTD: Tensor,
    compute: Compute,
    *,
    name: str,
    t_out: int,
    chunks: Sequence[int] = (24, 8, 8),
    numeric_class: NumericClass = NumericClass.FP32,
) -> list[Entry]:
    """The receipts of one session with their rows: a chunk of a prompt, then decoded ones."""
    outputs_BTD = compute(inputs_BTD)
    session_id = SessionId(sha256(name.encode()).digest()[:16])
    made: list[Entry] = []
    at = 0
    for count in chunks:
        ins, outs = (_rows(tensor[:, at : at + count]) for tensor in (inputs_BTD, outputs_BTD))
        receipt = Receipt(
            chain_id=1337,
            epoch=0,
            model_root=manifest.root,
            span=span,
            weight_root=manifest.weight_root(span),
            numeric_class=numeric_class,
            session_id=session_id,
            client_nonce=sha256(b"nonce" + name.encode()).digest(),
            pos_start=at,
            n_pos=count,
            wire=WireDtype.FLOAT32,
            batch=1,
            order_root=ZERO_HASH,
            in_root=rows_root(session_id, at, ins),
            out_root=rows_root(session_id, at, outs),
            upstream_receipt_hash=ZERO_HASH,
            prev_receipt_hash=made[-1].receipt.hash() if made else Hash32(ZERO_HASH),
            t_in=t_out,
            t_out=t_out + at,
        )
        made.append(Entry(receipt.sign(node), b"".join(ins), b"".join(outs)))
        at += count
    return made


def _rows(part_1TD: Tensor) -> list[bytes]:
    return [bytes(to_wire(part_1TD[:, t : t + 1].contiguous())[2]) for t in range(part_1TD.shape[1])]
