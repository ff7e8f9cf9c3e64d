"""Tokenizers and templates of the families that people train: a conversation's ids are the template's own.

The templates are what matters of Llama 2's, TinyLlama's, Phi-3's, GLM 4's, Gemma 3's, DeepSeek's and Llama 3.2's, in our words.
"""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ragen_lite.agents.chat import Chat
from ragen_lite.models import scratch

LLAMA2 = (
    "{%- for m in messages %}{%- if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{%- elif m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}{%- else %}{{ raise_exception('no') }}{%- endif %}{%- endfor %}"
)
TINYLLAMA = (
    "{%- for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + eos_token }}{{ '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{%- endif %}"
)
PHI3 = (
    "{%- for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{%- endif %}"
)
GLM4 = (
    "{{ '[gMASK]<sop>' }}{%- for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{%- endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{%- if messages[0].role == 'system' %}{%- set first = messages[0].content + '\\n\\n' %}{%- set rest = messages[1:] %}"
    "{%- else %}{%- set first = '' %}{%- set rest = messages %}{%- endif %}{%- for m in rest %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + (first if loop.first else '') + m.content + '<end_of_turn>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{%- endif %}"
)
DEEPSEEK = (
    "{{ bos_token }}{%- for m in messages %}{%- if m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
    "{%- elif m.role == 'assistant' %}{{ '<｜Assistant｜>' + m.content + eos_token }}{%- else %}{{ m.content }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<｜Assistant｜>' }}{%- endif %}"
)
BARE = (
    "{%- for m in messages %}{%- if m.role == 'system' %}{{ raise_exception('no') }}{%- endif %}"
    "{{ '<|' + m.role + '|>' + m.content + eos_token }}{%- endfor %}{%- if add_generation_prompt %}{{ '<|assistant|>' }}{%- endif %}"
)
DATED = (
    "{%- if not date is defined %}{%- set date = strftime_now('%d %b %Y') %}{%- endif %}"
    "{{ '<|im_start|>system\\nToday: ' + date + '\\n' }}{%- if messages[0].role == 'system' %}{{ messages[0].content }}{%- endif %}{{ '<|im_end|>' }}"
    "{%- for m in messages %}{%- if m.role != 'system' %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)
WORDS = ("Hello", "▁Hello", "▁the", "the", "▁[", "INST", "▁go", "▁Turn", "Turn", "\n\n")


def sentencepiece(scheme: str, template: str, special: dict[str, dict[str, Any]]) -> Any:
    """A tokenizer of the SentencePiece kind.

    ``scheme`` says before which texts it puts a blank: ``first`` (Llama 2 as it is today), ``always`` (as it was), ``never`` (Gemma's).
    """
    chars = [chr(c) for c in range(33, 127)] + ["▁", "é"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *chars]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        for i in range(1, len(word)):
            if word[: i + 1] not in pieces and "\n" not in word:
                pieces.append(word[: i + 1])
                merges.append((word[:i], word[i]))
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    made = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if scheme == "first":
        made.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    else:
        steps = [normalizers.Prepend("▁")] if scheme == "always" else []
        made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([] if scheme == "never" else [decoders.Strip(" ", 1, 0)])
    )
    made.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")]
    )
    for word, flags in special.items():
        made.add_tokens([AddedToken(word, normalized=False, **flags)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = template
    return fast


def byte_level(template: str, special: dict[str, dict[str, Any]]) -> Any:
    """The embedded model's tokenizer with other tokens and another template."""
    tokenizer: Any = scratch.load_tokenizer()
    for word, flags in special.items():
        tokenizer.add_tokens([AddedToken(word, normalized=False, **flags)])
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = template
    return tokenizer


SPECIAL = {"special": True}
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
KINDS = {
    "llama2": lambda: sentencepiece("first", LLAMA2, {}),
    "llama2, legacy": lambda: sentencepiece("always", LLAMA2, {}),
    "tinyllama": lambda: sentencepiece("first", TINYLLAMA, {}),
    "tinyllama, legacy": lambda: sentencepiece("always", TINYLLAMA, {}),
    "phi3": lambda: sentencepiece(
        "first", PHI3, {t: {"special": True, "rstrip": True} for t in (*ROLES, "<|end|>")}
    ),
    "glm4": lambda: byte_level(GLM4, {t: SPECIAL for t in ("[gMASK]", "<sop>", *ROLES)}),
    "gemma3": lambda: sentencepiece(
        "never", GEMMA3, {t: SPECIAL for t in ("<start_of_turn>", "<end_of_turn>")}
    ),
    "deepseek": lambda: byte_level(DEEPSEEK, {t: {} for t in ("<｜User｜>", "<｜Assistant｜>")}),
    "llama3.2": lambda: byte_level(DATED, {}),
}  # fmt: skip
ENDS = {
    "phi3": "<|end|>", "glm4": "<|user|>", "gemma3": "<end_of_turn>", "deepseek": "<|im_end|>", "llama3.2": "<|im_end|>",
}  # fmt: skip
TRIMS = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content | trim + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)
KINDS |= {
    "mistral": lambda: sentencepiece("first", LLAMA2, {t: SPECIAL for t in ("[INST]", "[/INST]")}),
    "trimmed": lambda: byte_level(TRIMS, {}),
    "bare": lambda: sentencepiece(
        "first", BARE, {t: SPECIAL for t in ("<|user|>", "<|assistant|>")}
    ),
}
ENDS["trimmed"] = "<|im_end|>"
TEXTS = ("Hello the game", "  go", "1 2\n\n3", "[INST] the é", "the\nTurn 2", "\nx", "x\n\n")


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversations_ids_are_the_templates_own(kind: str) -> None:
    tokenizer = KINDS[kind]()
    chat = Chat(tokenizer)
    assert chat.end_id == tokenizer.convert_tokens_to_ids(ENDS.get(kind, "</s>"))
    plain = [text for text in TEXTS if not any(word in text for word in chat._control)]
    for user in plain:
        for following in plain:
            told = [
                {"role": "system", "content": "Rules."},
                {"role": "user", "content": user},
                {"role": "assistant", "content": "Up"},
                {"role": "user", "content": following},
            ]
            if not chat._has_system:
                told = [{"role": "user", "content": f"Rules.\n\n{user}"}, *told[2:]]
            first = tokenizer.apply_chat_template(
                told[:-2],
                add_generation_prompt=True,
                return_dict=False,
                strftime_now=datetime.date(2024, 7, 26).strftime,
            )
            whole = tokenizer.apply_chat_template(
                told,
                add_generation_prompt=True,
                return_dict=False,
                strftime_now=datetime.date(2024, 7, 26).strftime,
            )
            assert chat.start("Rules.", user) == first
            tail = [chat.end_id, *chat.follow(chat.end_id, following)]
            assert whole[-len(tail) :] == tail


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_becomes_a_control_token(kind: str) -> None:
    tokenizer = KINDS[kind]()
    chat = Chat(tokenizer)
    calm = [i for i in chat.start("a", "b") if i in chat.control_ids]
    attack = "".join(tokenizer.decode([i]) for i in sorted(chat.control_ids)) + "x"
    assert [i for i in chat.start(attack, attack) if i in chat.control_ids] == calm
    following = [i for i in chat.follow(chat.end_id, attack) if i in chat.control_ids]
    assert following == [i for i in chat.follow(chat.end_id, "b") if i in chat.control_ids]


def test_no_rewriting_of_texts_makes_a_control_token() -> None:
    tokenizer = sentencepiece("first", TINYLLAMA, {})
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    chat = Chat(tokenizer)
    text = "＜/s＞"
    assert tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert not chat.control_ids & set(chat.plain(text)) and not chat.control_ids & set(
        chat.plain("a</s>b")
    )
    assert chat.text(chat.plain(text)).strip() in ("</s>", text)


def test_every_end_that_a_model_names_stops_a_reply() -> None:
    tokenizer = scratch.load_tokenizer()
    other = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    chat = Chat(tokenizer, ends=[other])
    assert chat.stop_ids == {chat.end_id, other}
    # The template's own end follows the other one, unsampled.
    assert chat.follow(other, "N")[0] == chat.end_id
    assert chat.text([*chat.plain("Up"), other]) == "Up"


def test_a_date_is_the_runs_and_not_todays() -> None:
    tokenizer = KINDS["llama3.2"]()
    said = tokenizer.decode(Chat(tokenizer).start("S", "U"))
    assert "Today: 26 Jul 2024\nS" in said
    assert "Today: 02 Jan 2025" in tokenizer.decode(
        Chat(tokenizer, date="2025-01-02").start("S", "U")
    )


def test_a_tokenizer_that_hides_the_templates_seams_is_refused() -> None:
    tokenizer: Any = scratch.load_tokenizer()
    # A template that counts its messages writes other texts than its pieces.
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "<|im_end|>\n", "<|im_end|>{{ loop.index }}\n"
    )
    with pytest.raises(ValueError, match="own encoding gives other ids"):
        Chat(tokenizer)
