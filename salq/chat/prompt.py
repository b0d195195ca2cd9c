"""From messages to token ids: the model's own chat template, or plain text for a base model, and never more than fits.

What a visitor typed is text: special tokens spelled out in it are tokenised as the characters that they are, so nobody can
end a turn or open an assistant's turn from inside a message.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from jinja2 import TemplateError

from salq.core.errors import ConfigError, ModelError
from salq.models.llama import Llama

CONTEXT_TOKENS = 4096
"""Most tokens of prompt and answer together; a model with a shorter context has less."""

ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    """One turn: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """Token ids of a prompt, how they were made, and what a person should know about it."""

    ids: tuple[int, ...]
    style: Literal["chat", "completion"]
    context: int
    """Tokens that prompt and answer may take together."""
    notes: tuple[str, ...] = ()


def encode_prompt(llama: Llama, messages: Sequence[Message], max_new_tokens: int) -> Prompt:
    """Token ids of `messages`, shortened until `max_new_tokens` still fit into the model's context.

    The oldest turns go first, then the end of the last message; both are said in `notes`. A model without a chat template
    continues the last message as plain text.
    Raises ConfigError for messages that are not messages, ModelError when the model's chat template refuses them.
    """
    turns = _checked(messages)
    context = min(CONTEXT_TOKENS, int(llama.config.max_position_embeddings))
    room = max(context - max_new_tokens, context // 2)
    if not llama.is_chat:
        ids, notes = _shortened(llama, turns[-1:], room, _completion_ids)
        plain = "This is a base model without a chat template: it continues your text, and earlier turns are not sent."
        return Prompt(tuple(ids), "completion", context, (plain, *notes))
    ids, notes = _shortened(llama, turns, room, _chat_ids)
    return Prompt(tuple(ids), "chat", context, notes)


Encode = Callable[[Llama, list[Message]], list[int]]


def _checked(messages: Sequence[Message]) -> list[Message]:
    for message in messages:
        if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
            raise ConfigError(f"A message needs a role ({', '.join(ROLES)}) and a text as content; got {message!r:.80}.")
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise ConfigError("The conversation must end with a message of the user that is not empty.")
    return list(messages)


def _chat_ids(llama: Llama, turns: list[Message]) -> list[int]:
    try:
        # sanitize_control_tokens: what is typed inside a message is encoded as text, whatever it spells.
        encoded = llama.tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=False, sanitize_control_tokens=True
        )
    except (TemplateError, ValueError) as error:
        raise ModelError(f"The chat template of {llama.name} refuses this conversation ({error}); start a new chat.") from error
    return list(encoded)


def _completion_ids(llama: Llama, turns: list[Message]) -> list[int]:
    return list(llama.tokenizer(turns[-1]["content"], split_special_tokens=True).input_ids)


def _shortened(llama: Llama, turns: list[Message], room: int, encode: Encode) -> tuple[list[int], tuple[str, ...]]:
    system = [turn for turn in turns if turn["role"] == "system"]
    rest = [turn for turn in turns if turn["role"] != "system"]
    dropped = 0
    ids = encode(llama, system + rest)
    while len(ids) > room and len(rest) > 1:
        gone = 2 if rest[1]["role"] == "assistant" else 1
        rest, dropped = rest[gone:], dropped + gone
        ids = encode(llama, system + rest)
    notes = [f"The {dropped} oldest messages no longer fit into the context of this model and were not sent."] if dropped else []
    if len(ids) > room:
        ids = _cut_last(llama, system, rest[-1], room, encode)
        notes.append(f"The message does not fit into the context of this model; only its beginning was sent ({len(ids)} tokens).")
    return ids, tuple(notes)


def _cut_last(llama: Llama, system: list[Message], last: Message, room: int, encode: Encode) -> list[int]:
    low, high = 0, len(last["content"])  # characters: `low` fit, `high` do not
    ids: list[int] = []
    while high - low > 1:
        middle = (low + high) // 2
        tried = encode(llama, [*system, Message(role="user", content=last["content"][:middle])])
        if len(tried) <= room:
            low, ids = middle, tried
        else:
            high = middle
    if not ids:
        raise ConfigError(f"Nothing of the message fits into the context of {llama.name} ({room} tokens); shorten the system prompt.")
    return ids
