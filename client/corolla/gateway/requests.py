"""What clients may ask for, checked: every field that means something is honoured or refused by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from corolla.gateway.backend import Ask
from corolla.gateway.problem import Problem
from corolla.values import Conversation, Prompt
from corolla_core.model.sampling import SamplingParams

MAX_CHOICES = 8
MAX_PROMPTS = 8
MAX_STOPS = 4
#: a text for which nobody said how long it may be
DEFAULT_MAX_TOKENS = 256

Finite = Field(allow_inf_nan=False)
StopText = Annotated[str, Field(min_length=1, max_length=256)]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class _Strict(BaseModel):
    """Nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class FunctionCall(_Strict):
    name: str
    arguments: str


class ToolCallMessage(_Strict):
    id: str
    type: Literal["function"]
    function: FunctionCall


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCallMessage] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError("a message has content, or is an assistant's with tool_calls")
        return self

    def templated(self) -> dict[str, Any]:
        """As chat templates take it."""
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        told: dict[str, Any] = {"role": "system" if self.role == "developer" else self.role, "content": text}
        if self.name is not None:
            told["name"] = self.name
        if self.tool_call_id is not None:
            told["tool_call_id"] = self.tool_call_id
        if self.tool_calls:
            told["tool_calls"] = [
                {"id": call.id, "type": "function", "function": _called(call.function)} for call in self.tool_calls
            ]
        return told


def _called(call: FunctionCall) -> dict[str, Any]:
    try:
        arguments = json.loads(call.arguments)
    except ValueError:  # what a model called in vain is still to be told
        arguments = call.arguments
    return {"name": call.name, "arguments": arguments}


class Function(_Strict):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Literal[False] | None = None


class Tool(_Strict):
    type: Literal["function"]
    function: Function


class NamedFunction(_Strict):
    name: ToolName


class NamedTool(_Strict):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(_Strict):
    name: str
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class TextFormat(_Strict):
    type: Literal["text"]


class ObjectFormat(_Strict):
    type: Literal["json_object"]


class SchemaFormat(_Strict):
    type: Literal["json_schema"]
    json_schema: JsonSchema


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class _Request(_Strict):
    """What chat and completions have in common. A null is as good as nothing, as it is to OpenAI's API.

    The last of the fields are labels that change no text; they are taken and go nowhere.
    """

    model: Annotated[str, Field(min_length=1, max_length=256)]
    max_tokens: Annotated[int | None, Field(ge=1, le=2**31)] = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] = 0.0
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] = []
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain_json(cls, raw: Any) -> Any:
        try:
            json.dumps(raw, allow_nan=False, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a string has half of a surrogate pair") from None
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return {name: value for name, value in raw.items() if value is not None} if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _streams_if_it_says_how(self) -> _Request:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options goes with stream")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def _params(self, choice: int, *, max_tokens: int | None, json_schema: str | None = None) -> SamplingParams:
        """Each choice has a seed of its own, or seeded choices would all be the same."""
        return SamplingParams(
            max_tokens=max_tokens or DEFAULT_MAX_TOKENS,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=None if self.seed is None else (self.seed + choice) % 2**63,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop),
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            json_schema=json_schema,
        )


class ChatRequest(_Request):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=2**31)] = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0
    tools: Annotated[list[Tool], Field(max_length=128)] = []
    tool_choice: Literal["none", "auto", "required"] | NamedTool = "auto"
    parallel_tool_calls: Literal[True] = True
    response_format: Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] = TextFormat(
        type="text"
    )
    metadata: dict[str, str] | None = None
    store: Literal[False] = False
    service_tier: Literal["auto", "default"] = "auto"
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs goes with logprobs")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens is max_completion_tokens' old name: give one of them")
        if self.tool_choice != "auto" and self.tool_choice != "none" and not self._choosable:
            raise ValueError("tool_choice names a function that is not among the tools")
        if self.tools and self.tool_choice != "none" and self.response_format.type != "text":
            raise ValueError("response_format goes with no tools, or with tool_choice none")
        return self

    @property
    def tool_mode(self) -> Literal["none", "auto", "forced"]:
        """Whether texts may hold calls, or must be one."""
        if not self.tools or self.tool_choice == "none":
            return "none"
        return "auto" if self.tool_choice == "auto" else "forced"

    def asks(self) -> list[Ask]:
        tools = tuple(tool.model_dump(exclude_none=True) for tool in self.tools) if self.tool_mode != "none" else ()
        prompt = Conversation(tuple(message.templated() for message in self.messages), tools)
        max_tokens = self.max_completion_tokens or self.max_tokens
        return [
            Ask(
                self.model,
                prompt,
                self._params(choice, max_tokens=max_tokens, json_schema=self._json_schema()),
                logprobs=self.logprobs,
                top_logprobs=self.top_logprobs,
            )
            for choice in range(self.n)
        ]

    @property
    def _choosable(self) -> list[Function]:
        """The functions of which a forced call calls one."""
        functions = [tool.function for tool in self.tools]
        if isinstance(self.tool_choice, NamedTool):
            return [function for function in functions if function.name == self.tool_choice.function.name]
        return functions

    def _json_schema(self) -> str | None:
        if self.tool_mode == "forced":
            return json.dumps({"anyOf": [_call_schema(function) for function in self._choosable]})
        match self.response_format:
            case ObjectFormat():
                return json.dumps({"type": "object"})
            case SchemaFormat(json_schema=described):
                return json.dumps(described.schema_)
            case _:
                return None


def _call_schema(function: Function) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": function.name}, "arguments": function.parameters or {"type": "object"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=2**17)]


class CompletionRequest(_Request):
    """`POST /v1/completions`."""

    prompt: (
        str
        | TokenIds
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    logprobs: Annotated[int | None, Field(ge=0, le=5)] = None
    echo: Literal[False] = False
    best_of: Annotated[int | None, Field(ge=1)] = None

    @model_validator(mode="after")
    def _fits_together(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != self.n:
            raise ValueError("best_of other than n is not supported")
        if len(self._prompts) * self.n > MAX_CHOICES:
            raise ValueError(f"at most {MAX_CHOICES} choices in all")
        return self

    def asks(self) -> list[Ask]:
        return [
            Ask(
                self.model,
                prompt,
                self._params(choice, max_tokens=self.max_tokens),
                logprobs=self.logprobs is not None,
                top_logprobs=self.logprobs or 0,
            )
            for prompt in self._prompts
            for choice in range(self.n)
        ]

    @property
    def _prompts(self) -> list[Prompt]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [self.prompt] if isinstance(self.prompt[0], int) else list(self.prompt)


@dataclass(frozen=True, slots=True)
class _Fault:
    message: str
    param: str | None
    code: str


def refused(faults: list[Any]) -> Problem:
    """What pydantic found wrong, the first of it, without the value: that may be long, secret or no JSON."""
    first = faults[0]
    where = [str(part) for part in first["loc"] if part != "body"]
    param = where[0] if where else None
    message = str(first["msg"]).removeprefix("Value error, ")
    match first["type"]:
        case "extra_forbidden":
            fault = _Fault(f"unsupported parameter: {'.'.join(where)}", param, "unsupported_parameter")
        case "json_invalid":
            fault = _Fault("the body is not JSON", None, "invalid_json")
        case "missing":
            fault = _Fault(f"{'.'.join(where) or 'the body'} is required", param, "missing_required_parameter")
        case "value_error":
            fault = _Fault(message, param, "invalid_value")
        case _:
            fault = _Fault(f"{'.'.join(where) or 'the body'}: {message}", param, "invalid_value")
    return Problem(400, fault.message, code=fault.code, param=fault.param)
