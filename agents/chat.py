"""Chat templates, append-only: only what is new is ever encoded, and a reply is never rendered
again.

Templates rewrite history (Qwen3's drops old thoughts) and re-encoding a reply may give other tokens
than were sampled. So the template is rendered three times, at the start, around place holders, and
cut into the texts between messages.
"""

from __future__ import annotations

from typing import Any

# Private-use characters: they stand in no template, no tokenizer treats them as control tokens,
# none trims them.
_USER = "\ue000u\ue001"
_REPLY = "\ue000r\ue001"
_NEXT = "\ue000n\ue001"
_SYSTEM = "\ue000s\ue001"


class Chat:
    """Token ids of a conversation's parts, for one tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.

    Attributes:
        end_id: the token that ends an assistant's message in the template.
        stop_ids: the tokens at which an engine stops a reply: ``end_id`` and the tokenizer's eos.

    Raises ValueError where the tokenizer has no chat template, or one that cannot be cut at its
    messages.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            name = getattr(tokenizer, "name_or_path", "") or "this model"
            raise ValueError(
                f"the tokenizer of {name} has no chat template, so it cannot hold a conversation:"
                " take an instruction-tuned model, or put a chat_template.jinja into its folder"
            )
        user = {"role": "user", "content": _USER}
        try:
            self._start = self._split(
                [{"role": "system", "content": _SYSTEM}, user], _SYSTEM, _USER
            )
        except (
            Exception
        ) as error:  # templates without a system role raise their own error (Gemma's does)
            if type(error).__name__ not in (
                "TemplateError",
                "TemplateRuntimeError",
                "UndefinedError",
                "ValueError",
            ):
                raise
            before, after = self._split([user], _USER)
            self._start = [before, "\n\n", after]
        turn = [user, {"role": "assistant", "content": _REPLY}, {"role": "user", "content": _NEXT}]
        _, between, self._open = self._split(turn, _REPLY, _NEXT)
        # The template's text between a reply and the next message begins with the end of the reply.
        closing = self._control(between)
        ends = [i for i, token in enumerate(closing) if token in set(tokenizer.all_special_ids)]
        if not ends:
            raise ValueError(
                "the chat template marks no end of an assistant's message with a special token"
            )
        self._closing = closing[: ends[0] + 1]
        self._glue = closing[ends[0] + 1 :]
        self._opening = self._control(self._open)
        self.end_id = closing[ends[0]]
        self.stop_ids = frozenset({self.end_id} | ({tokenizer.eos_token_id} - {None}))
        self._encoded: dict[
            str, tuple[int, ...]
        ] = {}  # system prompts and a group's first messages come again
        self._parts = [self._control(part) for part in self._start]

    def start(self, system: str, user: str) -> list[int]:
        """Token ids of a conversation up to where its first reply begins."""
        before, between, after = self._parts
        return [*before, *self.plain(system), *between, *self.plain(user), *after]

    def follow(self, last_id: int, user: str) -> list[int]:
        """Token ids between a reply, whose last sampled token is ``last_id``, and the next one.

        A reply that was cut at its length gets its end token here, unsampled.
        """
        closing = [] if last_id == self.end_id else self._closing
        return [*closing, *self._glue, *self.plain(user), *self._opening]

    def plain(self, text: str) -> list[int]:
        """Token ids of a text in which control tokens are plain text: ``<|im_end|>`` is ten
        characters here."""
        if text not in self._encoded:
            # Messages of a long run never come again; the cache must not grow with it.
            if len(self._encoded) > 4096:
                self._encoded.clear()
            ids = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
            self._encoded[text] = tuple(ids)
        return list(self._encoded[text])

    def text(self, token_ids: list[int] | tuple[int, ...]) -> str:
        """A reply as text, without its end token: for reading only, never encoded again.

        Control tokens in the middle are shown, so that a reply with one is not taken for a
        well-formed one.
        """
        ids = list(token_ids[:-1] if token_ids and token_ids[-1] in self.stop_ids else token_ids)
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    def _control(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _split(self, messages: list[dict[str, str]], *holders: str) -> list[str]:
        rest = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        parts = []
        for holder in holders:
            if rest.count(holder) != 1:
                raise ValueError("the chat template does not show every message once, as it is")
            part, rest = rest.split(holder)
            parts.append(part)
        return [*parts, rest]
