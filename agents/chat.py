"""Chat templates, append-only: only what is new is ever encoded, and a reply is never rendered
again.

Templates rewrite history (Qwen3's drops old thoughts) and re-encoding a reply may give other tokens
than were sampled. So the template is rendered at the start only, around place holders, and cut into
the texts between messages. What stands between two control tokens is encoded in one piece, as the
template's own encoding does it; only the template's texts can hold control tokens.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from typing import Any

# Private-use characters: they stand in no template, no tokenizer treats them as control tokens,
# none trims them.
_USER = "\ue000u\ue001"
_REPLY = "\ue000r\ue001"
_NEXT = "\ue000n\ue001"
_SYSTEM = "\ue000s\ue001"
# Texts by which the pieces are held against the template's own encoding.
_SAMPLES = ("You play.", "Turn 1: go?", "Up", "Turn 2: and now?")
# Texts by which it is seen how a tokenizer begins a text, and what may stand before it unmerged.
_BEGINNINGS = ("x", " x", "\nx", "\n\nx", "user\nx", "[INST] x", "1", "é")
_LEADS = ("\n", "\x00", "☃")
# What marks a role; but a thought may be spoken of, so its marks are no control tokens.
_MARK = re.compile(r"(?!.*think)(?:<.{2,}>|\[.{2,}\])")
# Llama 3.2's template tells a date, and so do others; this is its own default.
DATE = "2024-07-26"

# The names of what a template without a system role raises.
NO_SYSTEM = ("TemplateError", "TemplateRuntimeError", "UndefinedError", "ValueError")

Layout = tuple[int | str, ...]  # control tokens as ids, what stands between them as text


class Chat:
    """Token ids of a conversation's parts, for one tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        ends: further ids that end a reply, such as those of a generation_config.json.
        date: the day that templates are told which ask for it, as YEAR-MONTH-DAY.

    Attributes:
        end_id: the token that ends an assistant's message in the template.
        stop_ids: the tokens at which an engine stops a reply: ``end_id``, the tokenizer's eos, and
            ``ends``.
        control_ids: all tokens that no text of a message becomes.

    Raises ValueError where the tokenizer has no chat template, one that cannot be cut at its
    messages, or one whose ids are not those of its pieces.
    """

    def __init__(self, tokenizer: Any, ends: Iterable[int] = (), date: str = DATE) -> None:
        self.tokenizer = tokenizer
        self._date = datetime.date.fromisoformat(date)
        if not getattr(tokenizer, "chat_template", None):
            name = getattr(tokenizer, "name_or_path", "") or "this model"
            raise ValueError(
                f"the tokenizer of {name} has no chat template, so it cannot hold a conversation:"
                " take an instruction-tuned model, or put a chat_template.jinja into its folder"
            )
        user = {"role": "user", "content": _USER}
        self._has_system = True
        try:
            start = self._split([{"role": "system", "content": _SYSTEM}, user], _SYSTEM, _USER)
        except Exception as error:
            # Templates without a system role raise an error of their own, as Gemma's does.
            if type(error).__name__ not in NO_SYSTEM:
                raise
            self._has_system = False
            before, after = self._split([user], _USER)
            start = [before, "\n\n", after]
        blanks = self._render([{"role": "user", "content": f" {_USER} "}], tokenize=False)
        self._trims = f" {_USER} " not in blanks
        turn = [user, {"role": "assistant", "content": _REPLY}, {"role": "user", "content": _NEXT}]
        _, between, opening = self._split(turn, _REPLY, _NEXT)
        self._added = tokenizer.added_tokens_decoder  # which the tokenizer builds at every look
        self._control = control_tokens(tokenizer, "".join([*start, between, opening]))
        self.control_ids = frozenset(self._control.values())
        # The longest first: one may begin like another.
        words = sorted(self._control, key=len, reverse=True)
        self._words = re.compile("|".join(map(re.escape, words)) or r"(?!)")
        self._start = [self._layout(text) for text in start]
        # The template's text between a reply and the next message begins with the end of the reply.
        closing = self._layout(between)
        ends_at = [i for i, part in enumerate(closing) if isinstance(part, int)]
        if not ends_at:
            raise ValueError(
                "the chat template marks no end of an assistant's message with a special token"
            )
        self._closing = closing[: ends_at[0] + 1]
        self._glue = closing[ends_at[0] + 1 :]
        self._opening = self._layout(opening)
        self.end_id = int(closing[ends_at[0]])
        eos = tokenizer.eos_token_id
        self.stop_ids = frozenset({self.end_id, *ends} | ({eos} - {None}))
        # System prompts and a group's first messages come again.
        self._encoded: dict[tuple[str, bool], tuple[int, ...]] = {}
        self._lead = self._find_lead()
        self._closed = self._encode(self._closing, first=False)
        self._check()

    def start(self, system: str, user: str, prefill: str = "") -> list[int]:
        """Token ids of a conversation up to where its first reply begins, behind its prefill."""
        before, between, after = self._start
        parts = [*before, self._trimmed(system), *between, self._trimmed(user), *after, prefill]
        return self._encode(parts, first=True)

    def follow(self, last_id: int, user: str, prefill: str = "") -> list[int]:
        """Token ids between a reply, whose last sampled token is ``last_id``, and the next one.

        A reply that was cut at its length gets its end token here, unsampled.
        """
        # The end is encoded in any case: it may swallow the blanks behind it.
        parts = [*self._closing, *self._glue, self._trimmed(user), *self._opening, prefill]
        ids = self._encode(parts, first=False)
        return ids[len(self._closed) :] if last_id == self.end_id else ids

    def plain(self, text: str) -> list[int]:
        """Token ids of a text in which control tokens are plain text: ``<|im_end|>`` is ten
        characters here."""
        return self._encode([text], first=False)

    def text(self, token_ids: list[int] | tuple[int, ...]) -> str:
        """A reply as text, without its end token: for reading only, never encoded again.

        Control tokens in the middle are shown, so that a reply with one is not taken for a
        well-formed one.
        """
        ids = list(token_ids[:-1] if token_ids and token_ids[-1] in self.stop_ids else token_ids)
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    # ---- the template's texts ----

    def _render(self, messages: list[dict[str, str]], tokenize: bool) -> Any:
        return self.tokenizer.apply_chat_template(
            messages,
            tokenize=tokenize,
            add_generation_prompt=True,
            return_dict=False,
            # The same prompts on every day: a run that is resumed tomorrow is the same run.
            strftime_now=self._date.strftime,
        )

    def _split(self, messages: list[dict[str, str]], *holders: str) -> list[str]:
        rest = self._render(messages, tokenize=False)
        parts = []
        for holder in holders:
            if rest.count(holder) != 1:
                raise ValueError("the chat template does not show every message once, as it is")
            part, rest = rest.split(holder)
            parts.append(part)
        return [*parts, rest]

    def _trimmed(self, text: str) -> str:
        """The text as the template shows it: some take the blanks around a message off."""
        return text.strip() if self._trims else text

    def _layout(self, text: str) -> Layout:
        """A text of the template with its control tokens as ids."""
        parts: list[int | str] = []
        at = 0
        for found in self._words.finditer(text):
            parts += [text[at : found.start()], self._control[found[0]]]
            at = found.end()
        parts.append(text[at:])
        return tuple(part for part in parts if part != "")

    # ---- encoding ----

    def _encode(self, parts: Sequence[int | str], first: bool) -> list[int]:
        """The ids of parts; texts side by side are one text, as the template's encoding sees it.

        Args:
            parts: ids, and texts, of the template or of messages.
            first: whether nothing stands before them.
        """
        ids: list[int] = []
        texts: list[str] = []
        for part in [*parts, None]:
            if isinstance(part, str):
                texts.append(part)
                continue
            if texts:
                before = ids[-1] if ids else None
                text = self._stripped("".join(texts), before, part)
                ids += self._encode_text(text, first and before is None)
                texts = []
            if part is not None:
                ids.append(part)
        return ids

    def _stripped(self, text: str, before: int | None, after: int | None) -> str:
        """The text less the blanks that the control tokens beside it swallow, as Phi-3's do."""
        added = self._added
        if before in added and added[before].rstrip:
            text = text.lstrip()
        if after in added and added[after].lstrip:
            text = text.rstrip()
        return text

    def _encode_text(self, text: str, first: bool) -> tuple[int, ...]:
        key = (text, first)
        if key not in self._encoded:
            # Messages of a long run never come again; the cache must not grow with it.
            if len(self._encoded) > 4096:
                self._encoded.clear()
            ids: list[int] = []
            for piece in self._unmarked(text):
                # Some tokenizers put a blank before a text, but none amid a conversation.
                bare = first and not ids
                ids += self._raw(piece) if bare or not self._lead else self._led(piece)
            self._encoded[key] = tuple(ids)
        return self._encoded[key]

    def _unmarked(self, text: str) -> list[str]:
        """The text in pieces, none of which holds a control token that a tokenizer would see."""
        pieces = []
        at = 0
        for found in self._words.finditer(text):
            # The first character alone is none.
            pieces.append(text[at : found.start() + 1])
            at = found.start() + 1
        return [*pieces, text[at:]] if text[at:] else pieces

    def _raw(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )
        if self.control_ids.isdisjoint(ids):
            return ids
        # A tokenizer that rewrites texts (full-width brackets as plain ones) has made one after
        # all. No character alone is one.
        apart = [self._raw(char) for char in text] if len(text) > 1 else []
        return [id for part in apart for id in part]

    def _led(self, text: str) -> list[int]:
        """The ids of a text behind the lead, without the lead's own."""
        return self._raw(self._lead + text)[len(self._raw(self._lead)) :]

    def _find_lead(self) -> str:
        """What is put before a text that follows a control token, to be encoded as it is there.

        It is nothing for most tokenizers. Those of the SentencePiece kind begin every text with a
        blank, so a text that is none's beginning needs something before it.
        """
        control = next(word for word, id in self._control.items() if id == self.end_id)

        def amid(text: str) -> list[int]:
            ids: list[int] = self.tokenizer.encode(control + text, add_special_tokens=False)
            return ids[ids.index(self.end_id) + 1 :]

        beginnings = [text for text in _BEGINNINGS if not self._words.search(text)]
        wanted = [amid(text) for text in beginnings]
        texts = [self._stripped(text, self.end_id, None) for text in beginnings]
        for lead in ("", *_LEADS):
            self._lead = lead
            found = [self._led(text) if lead else self._raw(text) for text in texts]
            if found == wanted:
                return lead
        raise ValueError("the tokenizer begins a text in a way that is not known here")

    def _check(self) -> None:
        """Hold the pieces' ids against the template's own encoding.

        Raises ValueError where they differ.
        """
        system, user, reply, following = _SAMPLES
        told = [{"role": "user", "content": f"{system}\n\n{user}"}]
        if self._has_system:
            told = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        if self.start(system, user) != list(self._render(told, tokenize=True)):
            raise ValueError("the chat template's own encoding gives other ids than its pieces")
        told += [{"role": "assistant", "content": reply}, {"role": "user", "content": following}]
        whole = list(self._render(told, tokenize=True))
        tail = [self.end_id, *self.follow(self.end_id, following)]
        if whole[-len(tail) :] != tail:
            raise ValueError("the chat template's own encoding gives other ids between messages")


def control_tokens(tokenizer: Any, template: str) -> dict[str, int]:
    """The tokens that structure a conversation, and their ids.

    They are the special ones, declared or added, and what a template marks its roles with, which
    some tokenizers do not call special (DeepSeek's ``<｜User｜>``).
    """
    found = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    for id, token in tokenizer.added_tokens_decoder.items():
        word = token.content
        marks = word in template and _MARK.fullmatch(word)
        if token.special or marks:
            found[word] = id
    return found
