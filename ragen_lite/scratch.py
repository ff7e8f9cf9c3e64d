"""A model from nothing: the tokenizer, chat template and random weights of the embedded default model.

The architecture is Qwen3's, so it goes through the same code as its large relatives. Every symbol, digit, position,
action word and tag of our tasks is one token, every sentence of the protocol too; any other text falls back to bytes.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from ragen_lite.envs.dialogue import PROTOCOLS, Dialogue

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = (
    *("system\n", "user\n", "assistant\n", "\n", "<think>", "</think>", "<answer>", "</answer>"),
    *(str(digit) for digit in range(10)),
    *(f"({row},{column})" for row in range(10) for column in range(10)),
    # Sokoban: a symbol and the blank behind it; the seams between the rows of a room
    *("Up", "Down", "Left", "Right", " || ", "push ", " from ", " to ", "walk"),
    *("#", "_", "O", "X", "√", "P", "S"),
    *("# ", "_ ", "O ", "X ", "√ ", "P ", "S "),
    *("#\n# ", "# # # # # #\n# ", "#\n# # # # # #\n", ", X ", ", O ", ", √ "),
    *("Turn ", ":\nState:\n", "\nYou have ", " actions left. "),
    *("Your reply could not be read: ", ".\n"),
    # Countdown
    *(" + ", " - ", " * ", " / ", "(", ")", " ", "Numbers: ", ". Target: ", ". ", "reach "),
)
TASKS = ("ragen_lite/Sokoban-v0", "ragen_lite/Countdown-v0")  # whose rules are tokens


def phrases() -> list[str]:
    """The sentences that our tasks' system prompts and reminders are made of, without their numbers."""
    found = [protocol.reminder for protocol in PROTOCOLS.values() if protocol.reminder]
    for env_id in TASKS:
        text = Dialogue(gym.make(env_id, disable_env_checker=True)).system
        piece = ""
        for char in text:
            if char.isdigit() or char == "\n":
                found.append(piece)
                piece = ""
            else:
                piece += char
        found.append(piece)
    return [phrase for phrase in found if len(phrase) > 3]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and the words and phrases of our tasks as single tokens; any text survives encoding and decoding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    words = dict.fromkeys([*WORDS, *phrases()])
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def make_model(
    tokenizer: Any, hidden: int, layers: int, heads: int, context: int = 1024, seed: int = 0
) -> PreTrainedModel:
    """A Qwen3 causal LM with random weights, drawn from ``seed`` alone."""
    config = Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        vocab_size=-(-len(tokenizer) // 32) * 32,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)
