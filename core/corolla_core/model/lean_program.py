"""A decoder's computation as a flat TorchScript function: what one traced run of it did, from operation to operation.

No module is called and no configuration looked at when it runs, Python has no part in it, and the interpreter lock is
free meanwhile. The operations are those of transformers' own classes in their own order, so that the numbers are too.

The decoder's attention must be `IMPLEMENTATION`, registered here, which leaves a mark in the trace. In its place stands
`_ATTEND`: for each session, write its rows to its cache and attend to what is there.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from corolla_core.model.ragged import UNDERSTOOD

IMPLEMENTATION = "corolla_lean"
_MARK = "corolla_lean::attend"
_ATTEND = """
def by_row(part: Tensor, first: int, rows: int, tokens: int) -> Tensor:
    return part.narrow(2, first, rows * tokens).squeeze(0).unflatten(1, [rows, tokens]).transpose(0, 1)

def attend(query: Tensor, key: Tensor, value: Tensor, layer: int, window: int, scale: float,
           keys: List[Tensor], values: List[Tensor], rows: List[int], tokens: List[int], held: List[int]) -> Tensor:
    first = 0
    outputs: List[Tensor] = []
    for session in range(len(held)):
        count, new, past = rows[session], tokens[session], held[session]
        own = by_row(query, first, count, new)
        all_keys = keys[layer * len(held) + session]
        all_values = values[layer * len(held) + session]
        all_keys.narrow(2, past, new).copy_(by_row(key, first, count, new))
        all_values.narrow(2, past, new).copy_(by_row(value, first, count, new))
        begin = max(0, past - window + 1)
        end = past + new
        seen_keys, seen_values = all_keys.narrow(2, begin, end - begin), all_values.narrow(2, begin, end - begin)
        if new == 1 or (past == 0 and end <= window):
            output = torch.ops.aten.scaled_dot_product_attention(
                own, seen_keys, seen_values, is_causal=new > 1, scale=scale, enable_gqa=True)
        else:
            at = torch.arange(past, end).unsqueeze(1)
            other = torch.arange(begin, end).unsqueeze(0)
            visible = torch.logical_and(other <= at, other > at - window)[None, None]
            group = own.size(1) // seen_keys.size(1)
            if group > 1:
                seen_keys = seen_keys.repeat_interleave(group, 1)
                seen_values = seen_values.repeat_interleave(group, 1)
            output = torch.ops.aten.scaled_dot_product_attention(
                own, seen_keys, seen_values, attn_mask=visible, scale=scale)
        outputs.append(output.transpose(1, 2).flatten(0, 1).unsqueeze(0))
        first += count * new
    if len(outputs) == 1:
        return outputs[0]
    return torch.cat(outputs, 1)
"""
"""Query `[1, H, R, W]`, key and value `[1, K, R, W]` of all new rows; gives `[1, R, H, W]`. A session's cache is of
`rows`, `[B, K, max_tokens, W]`, and has `held` positions, to which `tokens` come. As transformers does, the heads that
share keys get copies of them where there is a mask."""
_RUN = """
def run(hidden: Tensor, positions: Tensor, w: List[Tensor],
        keys: List[Tensor], values: List[Tensor], rows: List[int], tokens: List[int], held: List[int]) -> Tensor:
"""
_NO_WINDOW = 2**62
_INFIX = {"aten::add": "+", "aten::sub": "-", "aten::mul": "*", "aten::floor_divide": "//"}
_new_library: Any = torch.library.Library
_library = _new_library("corolla_lean", "DEF")
_library.define("attend(Tensor query, Tensor key, Tensor value, int layer, float scale) -> Tensor")
_library.impl(
    "attend", lambda query, key, value, layer, scale: query.transpose(1, 2).clone(), "CompositeExplicitAutograd"
)


def _marked(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, **options: Any
) -> tuple[Tensor, None]:
    if not options.keys() <= UNDERSTOOD:
        raise Untraceable(f"attention with {sorted(options.keys() - UNDERSTOOD)}")
    scale = options.get("scaling")
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    return torch.ops.corolla_lean.attend(query, key, value, module.layer_idx, scale), None


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, _marked)


class Untraceable(Exception):
    """What this decoder does is no flat list of operations."""


@dataclass(frozen=True, slots=True)
class Program:
    """Source text, and the tensors it calls `w`: those of the decoder, not copies of them."""

    source: str
    tensors: list[Tensor]

    def same_as(self, other: Program) -> bool:
        """Whether both do the same to the same."""
        return self.source == other.source and all(map(torch.equal, self.tensors, other.tensors))

    def compiled(self) -> Callable[..., Tensor]:
        run: Callable[..., Tensor] = torch.jit.CompilationUnit(self.source).run
        return run


class _Decoder(nn.Module):
    def __init__(self, view: Any) -> None:
        super().__init__()
        self.view = view
        self._forward = inspect.unwrap(type(view).forward)

    def forward(self, hidden_1RD: Tensor, positions_1R: Tensor) -> Tensor:
        outputs = self._forward(self.view, inputs_embeds=hidden_1RD, position_ids=positions_1R, use_cache=False)
        output_1RD: Tensor = outputs[0]
        return output_1RD


def capture(view: Any, windows: Sequence[int | None], *, rows: int) -> Program:
    """What `view`, a decoder whose attention is `IMPLEMENTATION`, does to `rows` rows. `windows`
    has the sliding window of each block's attention. Raises Untraceable, or whatever the decoder raises."""
    decoder = _Decoder(view).eval()
    first = next(decoder.parameters())
    hidden = torch.zeros(1, rows, view.config.hidden_size, dtype=first.dtype, device=first.device)
    positions = torch.arange(rows, device=first.device).unsqueeze(0)
    trace: Any = torch.jit.trace
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every size; the trial run is what finds out whether they matter
        traced = trace(decoder, (hidden, positions), check_trace=False)
    return _Writer(decoder, windows).write(traced.inlined_graph)


@dataclass(slots=True)
class _Writer:
    """Writes a graph down. Everything in it has a name for its value: an expression, or a tuple's list of them."""

    decoder: nn.Module
    windows: Sequence[int | None]
    names: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, Any] = field(default_factory=dict)
    numbers: set[str] = field(default_factory=set)
    """values that the trace has as tensors and the program as plain numbers"""
    tensors: list[Tensor] = field(default_factory=list)
    indices: dict[int, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    known: dict[str, list[str]] = field(default_factory=dict)
    """operations done, and what holds their results: nothing is done twice"""

    def write(self, graph: Any) -> Program:
        decoder, hidden, positions = (each.debugName() for each in graph.inputs())
        self.modules[decoder] = self.decoder
        self.names |= {hidden: "hidden", positions: "positions"}
        for node in graph.nodes():
            self._node(node)
        (output,) = graph.outputs()
        body = [*self.lines, f"return {self.names[output.debugName()]}"]
        return Program(_ATTEND + _RUN + "".join(f"    {line}\n" for line in body), self.tensors)

    def _node(self, node: Any) -> None:
        kind = node.kind()
        inputs = [each.debugName() for each in node.inputs()]
        outputs = [each.debugName() for each in node.outputs()]
        if kind == "prim::GetAttr":
            self._attribute(inputs[0], node.s("name"), outputs[0])
        elif kind == "prim::Constant":
            self._constant(node.output().toIValue(), outputs[0])
        elif kind == "prim::TupleConstruct":
            self.names[outputs[0]] = [self.names[each] for each in inputs]
        elif kind == "prim::TupleUnpack":
            self.names |= dict(zip(outputs, self.names[inputs[0]], strict=True))
        elif kind == "prim::ListConstruct":
            items = ", ".join(self.names[each] for each in inputs)
            kind = node.output().type().annotation_str
            self.names[outputs[0]] = f"[{items}]" if items else f"torch.jit.annotate({kind}, [])"
        elif kind == "prim::ListUnpack":
            self._do(self.names[inputs[0]], outputs)
        elif kind == "prim::NumToTensor" or (kind == "aten::Int" and inputs[0] in self.numbers):
            self.names[outputs[0]] = self.names[inputs[0]]
            self.numbers.add(outputs[0])
        elif kind in _INFIX and self.numbers.issuperset(inputs[:2]):
            left, right = (self.names[each] for each in inputs[:2])
            self.names[outputs[0]] = f"({left} {_INFIX[kind]} {right})"
            self.numbers.add(outputs[0])
        elif kind == "aten::to" and _same(node.inputsAt(0).type(), node.output().type()):
            self.names[outputs[0]] = self.names[inputs[0]]
        elif kind == _MARK:
            self._attend([self.names[each] for each in inputs], outputs)
        elif kind.startswith("aten::"):
            self._operation(node, [self.names[each] for each in inputs], outputs)
        else:
            raise Untraceable(kind)

    def _attribute(self, owner: str, name: str, output: str) -> None:
        value = getattr(self.modules[owner], name)
        if isinstance(value, Tensor):
            self.names[output] = self._tensor(value)
        else:
            self.modules[output] = value

    def _constant(self, value: Any, output: str) -> None:
        if isinstance(value, Tensor) and value.ndim:
            self.names[output] = self._tensor(value)
            return
        if isinstance(value, Tensor):
            value = value.item()
        if isinstance(value, int | float):
            self.numbers.add(output)
        self.names[output] = f'torch.device("{value}")' if isinstance(value, torch.device) else _literal(value)

    def _tensor(self, tensor: Tensor) -> str:
        index = self.indices.setdefault(id(tensor), len(self.tensors))
        if index == len(self.tensors):
            self.tensors.append(tensor)
        return f"w[{index}]"

    def _attend(self, inputs: list[str], outputs: list[str]) -> None:
        query, key, value, layer, scale = inputs
        window = self.windows[int(layer)] or _NO_WINDOW
        call = f"attend({query}, {key}, {value}, {layer}, {window}, {scale}, keys, values, rows, tokens, held)"
        self._do(call, outputs)

    def _operation(self, node: Any, inputs: list[str], outputs: list[str]) -> None:
        arguments = torch._C.parse_schema(node.schema()).arguments
        given = [
            f"{argument.name}={value}" if argument.kwarg_only else value
            for argument, value in zip(arguments, inputs, strict=True)
        ]
        self._do(f"torch.ops.{node.kind().replace('::', '.')}({', '.join(given)})", outputs)
        if re.fullmatch(r"aten::\w+_", node.kind()):
            self.known.clear()  # it wrote over one of its inputs

    def _do(self, expression: str, outputs: list[str]) -> None:
        if expression not in self.known:
            self.known[expression] = new = [f"v{len(self.lines)}_{index}" for index in range(len(outputs))]
            self.lines.append(f"{', '.join(new)} = {expression}")
        self.names |= dict(zip(outputs, self.known[expression], strict=True))


def _same(before: Any, after: Any) -> bool:
    """Whether a conversion of tensors changes nothing."""
    kinds = [(each.kind(), each.scalarType(), each.device()) for each in (before, after) if each.kind() == "TensorType"]
    return len(kinds) == 2 and None not in kinds[0] and kinds[0] == kinds[1]


def _literal(value: Any) -> str:
    if not isinstance(value, bool | int | float | str | None):
        raise Untraceable(f"a constant {type(value).__name__}")
    return f'float("{value}")' if isinstance(value, float) and not abs(value) < float("inf") else repr(value)
