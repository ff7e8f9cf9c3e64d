"""The embedded model's tokenizer, made from what its tasks say.

``python -m ragen_lite.models.tokenizer`` makes it.

Every word, digit, position and symbol that the listed tasks write often is one token, with or
without the blank before it, and every sentence of their rules too. Any other text falls back to
bytes. The tokenizer that ships is a file, and so is the list of its tasks (tiny/tasks.json): a task
that is changed or added does not change it.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import ragen_lite  # noqa: F401  (registers the tasks)
from ragen_lite.agents.scripted import teacher_policy
from ragen_lite.envs.dialogue import Dialogue
from ragen_lite.envs.formats import PROTOCOLS
from ragen_lite.models.scratch import TINY

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EPISODES = 400  # of each task, that words are collected from
OFTEN = 5  # times that a word must have been written
LONG = 20  # characters of a phrase that is worth a token
UNIT = re.compile(r" ?\(\d,\d+\)| ?[A-Za-z][A-Za-z']*| ?\d| ?[^\sA-Za-z0-9]|\n")
TAGS = ("<think>", "</think><answer>", "</think>", "<answer>", "</answer>")
FRAME = (
    "Turn ",
    ":\nState:\n",
    "\nYou have",
    " actions left.",
    "Your reply could not be read: ",
    ".\n",
)
# Whole rows, and the seams between rows: Sokoban's walls, the blank rows and the cliff of
# CliffWalking.
ROWS = (
    "# # # # # #\n#",
    " #\n#",
    " #\n# # # # # #\n",
    "_ _ _ _ _ _ _ _ _ _ _ _\n",
    " C C C C C C C C C C G\n",
)
WORDS = (
    *("system\n", "user\n", "assistant\n"),
    *TAGS,
    *FRAME,
    *string.digits,
    *(f" {digit}" for digit in range(10)),
    *(f" {letter}" for letter in string.ascii_lowercase),  # Wordle's words are spelled
    *ROWS,
)


def taught_tasks() -> dict[str, str]:
    """Short names and ids of the tasks that the embedded model was taught, from its frozen list."""
    tasks: dict[str, str] = json.loads((TINY / "tasks.json").read_text())
    return tasks


def _dialogue(env_id: str) -> Dialogue:
    return Dialogue(gym.make(env_id, disable_env_checker=True))


def _texts(name: str, env_id: str) -> Iterator[str]:
    """What a task and its teacher say in some episodes: messages, and replies."""
    env = _dialogue(env_id)
    rng = np.random.default_rng(0)
    for seed in range(EPISODES):
        message = env.reset(seed=seed)[0]
        over = False
        while not over:
            yield message
            reply = teacher_policy(env, rng)
            if name != "wordle":  # a word of its answers is five letters, as its rules have it
                yield reply
            message, _, terminated, truncated, _ = env.step(reply)
            over = terminated or truncated


def _phrases() -> Iterator[str]:
    """The sentences of the tasks' system prompts and of the reminders, without their numbers."""
    for protocol in PROTOCOLS.values():
        yield protocol.reminder
        yield f" {protocol.reminder}"
    for env_id in taught_tasks().values():
        yield from re.split(r"[\d\n]", _dialogue(env_id).system)


def vocabulary() -> tuple[str, ...]:
    """The tokens beside the bytes and the control tokens."""
    phrases = [phrase for phrase in _phrases() if len(phrase) > LONG]
    # The reminders are phrases of their own already; without them the count is of the tasks' words.
    units: Counter[str] = Counter()
    for name, env_id in taught_tasks().items():
        for text in _texts(name, env_id):
            for protocol in PROTOCOLS.values():
                text = text.replace(protocol.reminder or "\n", "\n")
            units.update(UNIT.findall(text))
    frequent = sorted(unit for unit, count in units.items() if count >= OFTEN)
    # Each once, in the order of its first appearance: the order decides the ids.
    return tuple(dict.fromkeys([*WORDS, *phrases, *frequent]))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer from nothing, in some seconds. Any text survives encoding and decoding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {char: i for i, char in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = [AddedToken(word, special=True, normalized=False) for word in SPECIAL]
    words = [AddedToken(word, special=False, normalized=False) for word in vocabulary()]
    tokenizer.add_special_tokens(control)
    tokenizer.add_tokens(words)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def save(folder: Path = TINY) -> None:
    """Make the tokenizer and write its files into ``folder``."""
    make_tokenizer().save_pretrained(folder)


if __name__ == "__main__":
    save()
