"""TRL's side of benchmarks/trl_iteration.py, and what both sides are given."""

from __future__ import annotations

import importlib
import os
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.envs.registry import find
from ragen_lite.models.scratch import TINY

GROUPS = 16
MEMBERS = 8
ROWS = GROUPS * MEMBERS
TOKENS = 32  # of a reply
CONTEXT = 1024  # tokens that the embedded model can read
LR = 1e-6


@dataclass(frozen=True, slots=True)
class Task:
    """A task by its short name, two endings of replies that earn different rewards, its options."""

    name: str
    endings: tuple[str, str]
    options: dict[str, int] = field(default_factory=dict)


# By turns. A room that needs six actions is not solved by five replies of one action.
TASKS = {
    1: Task("countdown", (" no", "<answer>1 + 2</answer>")),
    5: Task("sokoban", ("<answer>no</answer>", "<answer>Up</answer>"), {"min_cost": 6}),
}

# The tiny model's own template, but for tools: their answers are a user's messages.
CHAT = """{% for message in messages %}<|im_start|>{{ 'user' if message['role'] == 'tool' else message['role'] }}
{{ message['content'] }}{% if message['tool_calls'] %}{{ message['tool_calls'] | tojson }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
# A whole reply is one call of the only tool.
RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open_pattern": r"(?=<think>)",
            "close_pattern": r"<\|im_end\|>\s*",
            "repeats": True,
            "content": "text",
            "transform": {
                "type": "function",
                "function": {"name": "play", "arguments": {"reply": "{content}"}},
            },
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}

Replies = NDArray[np.int64]  # turns x rows x TOKENS


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison."""

    turns: int
    steps: int
    pairs: int
    micro_batch: int

    @property
    def task(self) -> Task:
        """What is played."""
        return TASKS[self.turns]


# ---- what both are given ----


def replies_of(policy: Any, turns: int) -> Replies:
    """The replies of every turn and row; no two are alike, so nothing but prompts is shared."""
    source = np.random.default_rng(0)
    texts = [policy.tokenizer.decode([i]) for i in range(len(policy.tokenizer))]
    words = [i for i, text in enumerate(texts) if text.isascii() and text.strip().isalpha()]
    encode = policy.chat.plain

    def reply(row: int) -> list[int]:
        ending = [*encode("</think>" + TASKS[turns].endings[row % 2]), policy.chat.end_id]
        beginning = encode("<think>")
        thought = source.choice(words, TOKENS - len(beginning) - len(ending))
        return [*beginning, *thought.tolist(), *ending]

    return np.array([[reply(row) for row in range(ROWS)] for _ in range(turns)])


@dataclass
class Meter:
    """A method of an object, with the CPU seconds of its calls and what the last one returned."""

    owner: Any
    name: str
    seconds: float = 0.0
    last: Any = None

    def __post_init__(self) -> None:
        self.method = getattr(self.owner, self.name)
        setattr(self.owner, self.name, self)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        began = time.process_time()
        self.last = self.method(*arguments, **named)
        self.seconds += time.process_time() - began
        return self.last

    def take(self) -> float:
        """The seconds since this was last asked."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


@dataclass
class Side:
    """The seconds of a side's iterations: whole, and in parts."""

    whole: list[float] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)


# ---- TRL's side ----


class Game:
    """Our environment as TRL has one: its only public method beside ``reset`` is the tool."""

    def __init__(self, spec: EnvSpec) -> None:
        self._handle = spec.open()
        self._system = ""
        self._returns = 0.0

    def reset(self, seed: int, **_: Any) -> str:
        """Begin an episode; returns the first observation, which joins the prompt."""
        self._returns = 0.0
        self._handle.reset(seed, {"split": "train", "member": 0})
        answer = self._handle.take()
        self._system = answer.system
        return answer.observation

    def play(self, reply: str) -> str:
        """
        Carry out a reply; returns what is seen next.

        Args:
            reply: The whole reply.
        """
        self._handle.step(reply)
        answer = self._handle.take()
        self._returns += answer.reward
        return answer.observation


class ForcedLogits(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token a row to draw: the next of its reply."""

    def __init__(self, replies: Replies) -> None:
        self.replies = torch.from_numpy(replies)
        self.calls = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        turn, place = divmod(self.calls, TOKENS)
        self.calls += 1
        chosen = self.replies[turn % len(self.replies), :, place]
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


def library() -> Any:
    """TRL, where it is installed."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        return importlib.import_module("trl")
    except ImportError as error:
        raise SystemExit(
            f"{error}: this measures against TRL, which requirements-trl.txt names: "
            "pip install --no-deps -r requirements-trl.txt"
        ) from error


def settings(case: Case, folder: str) -> Any:
    """TRL's configuration: the same work, and nothing beside it."""
    rows = min(case.micro_batch, ROWS // case.steps)
    parts = ROWS // rows
    return library().GRPOConfig(
        output_dir=folder,
        max_steps=case.steps * (case.pairs + 1),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=parts // case.steps,
        steps_per_generation=parts,
        num_generations=MEMBERS,
        num_iterations=1,
        beta=0.0,
        learning_rate=LR,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        max_completion_length=TOKENS if case.turns == 1 else CONTEXT,
        max_tool_calling_iterations=max(1, case.turns - 1),
        generation_kwargs={"max_new_tokens": TOKENS},
        shuffle_dataset=False,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


class Theirs:
    """TRL's side: a GRPOTrainer on the instances of ours.

    Args:
        seeds: of every iteration's instances.
        folder: for what it writes, which is nothing.
    """

    def __init__(self, case: Case, seeds: list[int], replies: Replies, folder: str) -> None:
        self.spec = EnvSpec(find(case.task.name), dict(case.task.options))
        self.seeds = seeds
        self.games = [Game(self.spec) for _ in range(ROWS if case.turns == 1 else 0)]
        tokenizer = AutoTokenizer.from_pretrained(TINY, padding_side="left")
        several = {}
        if case.turns > 1:
            tokenizer.chat_template = CHAT
            tokenizer.response_template = RESPONSE
            several = {"environment_factory": partial(Game, self.spec)}
        model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
        self.trainer = library().GRPOTrainer(
            model=model,
            reward_funcs=self.rewards,
            args=settings(case, folder),
            train_dataset=self.rows(case.turns == 1),
            processing_class=tokenizer,
            **several,
        )
        forced = LogitsProcessorList([ForcedLogits(replies)])
        model.generate = partial(model.generate, logits_processor=forced)
        self.generating = Meter(self.trainer, "_generate")
        self.sampling = Meter(self.trainer, "_generate_and_score_completions")
        self.side = Side()

    def rows(self, shown: bool) -> Any:
        """The data set; ``shown``: whether the first observation is in it, or comes by ``reset``."""
        game = Game(self.spec)
        found = []
        for seed in self.seeds:
            user = game.reset(seed)
            talk = [("system", game._system), ("user", user if shown else "")]
            prompt = [{"role": role, "content": content} for role, content in talk]
            found.append({"prompt": prompt, "seed": seed})
        return importlib.import_module("datasets").Dataset.from_list(found)

    def prepare(self, iteration: int) -> None:
        """Reset the environments of an iteration, from 0, where TRL does not."""
        seeds = self.seeds[iteration * GROUPS : (iteration + 1) * GROUPS]
        for row, game in enumerate(self.games):
            game.reset(seeds[row // MEMBERS])

    def rewards(self, completions: Any, environments: Any = None, **_: Any) -> list[float]:
        """The returns, once each row's last reply is carried out."""
        found = []
        for completion, game in zip(completions, environments or self.games, strict=True):
            said = completion[-1]
            calls = said.get("tool_calls")
            game.play(calls[0]["function"]["arguments"]["reply"] if calls else said["content"])
            found.append(game._returns)
        return found

    def note(self, whole: float) -> None:
        """An iteration of so many seconds is over."""
        rollout = self.generating.take()
        scoring = self.sampling.take() - rollout
        self.side.whole.append(whole)
        update = whole - rollout - scoring
        self.side.parts.append({"rollout": rollout, "scoring": scoring, "update": update})

    def tokens(self) -> list[list[int]]:
        """See Ours."""
        prompts, completions = self.generating.last[:2]
        return [list(a) + list(b) for a, b in zip(prompts, completions, strict=True)]
