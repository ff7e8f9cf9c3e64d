"""Knights and knaves by the rules of Logic-RL: who lies?

The puzzles are made in puzzles.py; their English is in english.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ragen_lite.envs.answers.asking import AnswerTask
from ragen_lite.envs.answers.knights_knaves.english import SAYINGS, article, read_answer
from ragen_lite.envs.answers.knights_knaves.published import load_puzzles, size_of
from ragen_lite.envs.answers.knights_knaves.puzzles import (
    NAMES,
    PERTURBATIONS,
    Dice,
    Puzzle,
    draw_statement,
    perturbed,
    solutions,
    truth,
)
from ragen_lite.envs.answers.rewards.outcomes import LOGIC_RL, STRICT
from ragen_lite.envs.answers.rows import rows_of_size
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import belongs, requested_split

EARNED = {"logic_rl": LOGIC_RL, "strict": STRICT}
RULES = (
    "Solve the puzzle. Say of every person, one a line, who they are, in the puzzle's own words,"
    " for example: (1) Zoey is a knight\n(2) Oliver is a knave"
)


class KnightsKnaves(AnswerTask):
    """Who is a knight, who is a knave? One turn.

    Args:
        min_people, max_people: 2 to 8.
        depth, width: how deep statements nest, and how many parts ``and`` and ``or`` may have.
        reward: ``logic_rl`` (3 right, -0.5 wrong, -1 not every person named, -3 unreadable) or
            ``strict`` (1 or 0). What is readable is Dialogue's rule, which is Logic-RL's and asks
            for more: nothing outside the tags, and an answer that is not empty. With a template,
            weights of whole replies (see AnswerTask).
        template: null, or a name of envs/answers/templates.py, such as ``logic_rl``.
        data: null (puzzles are made up), or a file or hub id of published ones, of which those
            with ``min_people`` to ``max_people`` are taken.
        perturb: null, or what is changed about a puzzle, for evaluation: ``statement`` (one is
            replaced), ``leaf`` (one leaf of one is changed), either so that the solution is another
            one; ``names`` (uncommon ones), ``roles`` (another pair of words), ``flipped`` (knights
            lie), ``order`` (of speaking).

    Raises:
        ValueError: an option out of its range.

    ``info``: success; read (the roles answered, or None); unperturbed (the solution before a
    change).
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}
    example = "(1) Zoey is a knight\n(2) Oliver is a knave"

    def __init__(
        self,
        min_people: int = 2,
        max_people: int = 3,
        depth: int = 2,
        width: int = 2,
        reward: str | dict[str, float] = "logic_rl",
        perturb: str | None = None,
        template: str | None = None,
        data: str | None = None,
        render_mode: str | None = None,
    ) -> None:
        if not 2 <= min_people <= max_people <= 8:
            raise ValueError(f"{min_people} to {max_people} people: a puzzle has 2 to 8")
        if not 2 <= depth <= 5 or not 2 <= width <= 5:
            # At depth 1 everybody makes a bare claim about one person. Then no solution is the only
            # one: everybody's role can be turned round.
            raise ValueError(f"depth={depth}, width={width}: both are 2 to 5")
        if perturb is not None and perturb not in PERTURBATIONS:
            raise ValueError(
                f"unknown perturb {perturb!r}: choose one of {', '.join(PERTURBATIONS)}, or null"
            )
        self.min_people = min_people
        self.max_people = max_people
        self.depth = depth
        self.width = width
        self.perturb = perturb
        self.render_mode = render_mode
        self.observation_space = text_space(20_000)
        self.action_space = text_space(1000)
        self.data = data
        self.earned = self.use(template, reward, EARNED)
        # Read at once, so that what is wrong with the data is said here and not in a reset.
        if data is not None:
            self._published("train")

    @property
    def instructions(self) -> str:
        """The system prompt; the puzzle itself tells the rules of its island."""
        return self.template.system if self.template else RULES

    def instance_count(self, split: str) -> int | None:
        """The puzzles of a split; None where they are made up."""
        return None if self.data is None else len(self._published(split))

    def _published(self, split: str) -> tuple[Puzzle, ...]:
        """The data's puzzles with as many people as are asked for."""
        assert self.data is not None
        sizes = range(self.min_people, self.max_people + 1)
        return rows_of_size(load_puzzles, size_of, self.data, split, sizes)

    def _instance(self) -> Puzzle:
        """A puzzle with exactly one solution: statements are drawn until they have it."""
        dice = Dice(self.np_random)
        people = self.min_people + dice(self.max_people - self.min_people + 1)
        # Random puzzles may have no solution or several; these are thrown away.
        while True:
            statements = tuple(
                draw_statement(dice, i, people, self.depth, self.width) for i in range(people)
            )
            if len(found := solutions(statements)) == 1:
                break
        sayings = tuple(dice(len(SAYINGS)) for _ in range(people))
        return Puzzle(statements, found[0], dice.some(NAMES, people), sayings)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a puzzle of ``options["split"]`` (``train`` where it is left out).

        A puzzle's logic alone decides its split, so a change of words leaves it where it is.

        Raises:
            RuntimeError: no changed puzzle of the split in 1,000 draws.
        """
        super().reset(seed=seed)
        split = requested_split(options)
        change = self.perturb
        # Where no change of a puzzle has another solution, or none is of the split, the next puzzle
        # is drawn.
        for _ in range(1_000):
            puzzle = self._base_puzzle(split, seed)
            changed = (
                perturbed(puzzle, change, self.np_random, self.depth, self.width)
                if change
                else [puzzle]
            )
            for new in changed:
                self.instance = new.logic
                # A puzzle with another statement may belong to another split; one of published data
                # is in the split that the data have put it into.
                if self.data or belongs(self.instance, split):
                    self.puzzle = new
                    return self.render(), {
                        "success": False,
                        "read": None,
                        "unperturbed": puzzle.identities,
                    }
        raise RuntimeError(
            f"no puzzle of the {split} split with another {change} in 1,000 draws: allow more"
            " people"
        )

    def _base_puzzle(self, split: str, seed: int | None) -> Puzzle:
        """A puzzle before a change."""
        if self.data is None:
            return self.draw(split, self._instance, lambda made: made.logic)
        puzzle = self.pick_row(self._published(split), split, seed, self.data)
        self.instance = puzzle.logic
        return puzzle

    @property
    def difficulty(self) -> float:
        """How many people there are."""
        return len(self.puzzle.names)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score an answer; every answer ends the episode."""
        if self.template:
            return self.judge(action)
        read = read_answer(action, self.puzzle.names, self.puzzle.roles)
        success = read == self.puzzle.identities
        earned = self.earned
        reward = earned.unsaid if read is None else earned.right if success else earned.wrong
        return self.render(), reward, True, False, {"success": success, "read": read}

    def question(self) -> str:
        """See AnswerTask."""
        return self.puzzle.text()

    def golds(self) -> tuple[str, ...]:
        """See AnswerTask."""
        return (self._answer(self.puzzle.identities),)

    def _roles(self, answer: str) -> list[str] | None:
        return read_answer(answer, self.puzzle.names, self.puzzle.roles)

    def grade(self, answer: str, gold: str) -> bool:
        """See AnswerTask."""
        return self._roles(answer) == self.puzzle.identities

    def parses(self, answer: str) -> bool:
        """Whether an answer gives everybody a role."""
        return self._roles(answer) is not None

    def render(self) -> str:  # type: ignore[override]
        """The puzzle."""
        return self.message() if self.template else self.question()

    def _answer(self, identities: Sequence[str]) -> str:
        """An answer in Logic-RL's form, a line a person: ``(1) Zoey is a knight``."""
        people = zip(self.puzzle.names, identities, strict=True)
        return "\n".join(
            f"({i}) {name} is {article(role)}" for i, (name, role) in enumerate(people, 1)
        )

    def solve(self) -> list[str]:
        """The solution in Logic-RL's form, a line a person."""
        return [self.reply_with(self._answer(self.puzzle.identities))]

    def guess(self, rng: np.random.Generator) -> list[str]:
        """Random roles, each of the two with probability 1/2."""
        roles = [self.puzzle.roles[rng.integers(2)] for _ in self.puzzle.names]
        return [self.reply_with(self._answer(roles))]

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[str]]:
        """The solution; the thought tries one assignment after the other up to the right one.

        It writes each as ``truth`` or ``lie`` a person. Then it says whether each person's words
        fit (``yes``, ``no``), up to the first whose words do not.
        """
        people = len(self.puzzle.names)
        thoughts = []
        tables = [truth(statement, people) for statement in self.puzzle.statements]
        for assignment in range(2**people):
            # Words fit where the speaker's bit is the truth of the statement in this assignment.
            fits = [(assignment >> i & 1) == (tables[i] >> assignment & 1) for i in range(people)]
            roles = " ".join("truth" if assignment >> i & 1 else "lie" for i in range(people))
            shown = fits if all(fits) else fits[: fits.index(False) + 1]
            thoughts.append(f"{roles}: {' '.join('yes' if fit else 'no' for fit in shown)}")
            if all(fits):
                break
        return self.teach(", ".join(thoughts), self._answer(self.puzzle.identities))
