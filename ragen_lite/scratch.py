"""A model from nothing: the tokenizer, chat template and random weights of the embedded default model.

The architecture is Qwen3's, so it goes through the same code as its large relatives. Every word, digit, position and
symbol that our tasks write often is one token, with or without the blank before it, and every sentence of their rules
too; any other text falls back to bytes.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import ragen_lite
from ragen_lite.agents.scripted import teacher_policy
from ragen_lite.envs.dialogue import PROTOCOLS, Dialogue
from ragen_lite.envs.registry import ours

TINY = Path(__file__).with_name("tiny")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The tasks whose words it has: all but the doors, whose texts are others', and the mixture, whose texts are the tasks'.
TAUGHT = {name: id_ for name, id_ in ours().items() if not re.search(r"envs\.(doors|mix):", ragen_lite.TASKS[id_])}
EPISODES, OFTEN = 400, 5  # of each task, that words are collected from; how often a word must have been written
UNIT = re.compile(r" ?\(\d,\d+\)| ?[A-Za-z][A-Za-z']*| ?\d| ?[^\sA-Za-z0-9]|\n")
WORDS = (
    *("system\n", "user\n", "assistant\n", "<think>", "</think><answer>", "</think>", "<answer>", "</answer>"),
    *("Turn ", ":\nState:\n", "\nYou have", " actions left.", "Your reply could not be read: ", ".\n"),
    *string.digits,
    *(f" {digit}" for digit in range(10)),
    *(f" {letter}" for letter in string.ascii_lowercase),  # Wordle's words are spelled
    # Whole rows, and the seams between rows: Sokoban's walls, the blank rows and the cliff of CliffWalking
    *("# # # # # #\n#", " #\n#", " #\n# # # # # #\n", "_ _ _ _ _ _ _ _ _ _ _ _\n", " C C C C C C C C C C G\n"),
)


def _texts(name: str) -> Iterator[str]:
    """What a task and its teacher say in some episodes: messages, and the replies where they are words of a list."""
    env = Dialogue(gym.make(TAUGHT[name], disable_env_checker=True))
    rng = np.random.default_rng(0)
    for seed in range(EPISODES):
        message, over = env.reset(seed=seed)[0], False
        while not over:
            yield message
            reply = teacher_policy(env, rng)
            if name != "wordle":  # a word of its answers is five letters, as its rules have it
                yield reply
            message, _, terminated, truncated, _ = env.step(reply)
            over = terminated or truncated


def _phrases() -> Iterator[str]:
    """The sentences that our tasks' system prompts and reminders are made of, without their numbers."""
    for protocol in PROTOCOLS.values():
        yield from (protocol.reminder, f" {protocol.reminder}")
    for env_id in TAUGHT.values():
        yield from re.split(r"[\d\n]", Dialogue(gym.make(env_id, disable_env_checker=True)).system)


def vocabulary() -> tuple[str, ...]:
    """The tokens beside the bytes and the control tokens."""
    phrases = [phrase for phrase in _phrases() if len(phrase) > 20]
    units: dict[str, int] = {}
    for text in (text for name in TAUGHT for text in _texts(name)):
        for protocol in PROTOCOLS.values():
            text = text.replace(protocol.reminder or "\n", "\n")
        for unit in UNIT.findall(text):
            units[unit] = units.get(unit, 0) + 1
    frequent = sorted(unit for unit, count in units.items() if count >= OFTEN)
    return tuple(dict.fromkeys([*WORDS, *phrases, *frequent]))


def load_tokenizer() -> Any:
    """The embedded model's tokenizer, which every model from nothing has."""
    return AutoTokenizer.from_pretrained(TINY)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """That tokenizer from nothing, in some seconds: bytes, and the words and phrases of our tasks as single tokens.

    Any text survives encoding and decoding.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in vocabulary()])
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
        intermediate_size=5 * hidden // 2,
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


if __name__ == "__main__":
    make_tokenizer().save_pretrained(TINY)
