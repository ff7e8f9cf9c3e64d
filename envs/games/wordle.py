"""Wordle: find a five-letter word in six guesses, out of the common ones listed here."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.base import TextTask
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import belongs, pick, requested_split, shuffled

# The words that can be drawn. A guess may be any five letters.
_LIST = """
about above actor acute admit adopt adult after again agent agree ahead alarm album alert alike
alive allow alone along alter among anger angle angry apart apple apply arena argue arise aside
asset audio avoid award aware badly baker basic beach began begin begun being below bench birth
black blame blind block blood board boost booth bound brain brand bread break breed brief bring
broad broke brown build built buyer cable chain chair chalk charm chart chase cheap check chest
chief child choir chose civil claim class clean clear climb clock close cloud coach coast could
count court cover craft crash cream crime cross crowd crown curve cycle daily dance dealt death
debut delay depth dirty doubt dozen draft drama drawn dream dress drill drink drive drove dying
eager early earth eight elder elect empty enemy enjoy enter entry equal error event every exact
exist extra faith false fault favor fiber field fifth fifty fight final first fixed flash fleet
floor fluid focus force forth forty forum found frame fresh front fruit fully funny giant given
glass globe going grace grade grain grand grant grass great green gross group grown guard guess
guest guide happy heart heavy hence horse hotel house human ideal image index inner input issue
joint judge juice known label large laser later laugh layer learn lease least leave legal lemon
level light limit local logic loose lower lucky lunch magic major maker march match maybe mayor
meant metal might minor minus mixed model money month moral motor mount mouse mouth movie music
needs nerve never night noise north novel nurse occur ocean offer often olive order other ought
paint panel paper party peace pearl phase phone photo piano piece pilot pitch place plain plane
plant plate point pound power press price pride prime print prior prize proof proud prove queen
quick quiet quite radio raise range rapid ratio reach ready refer right rival river robot rough
round route royal rural salad scale scene scope score sense serve seven shade shake shall shape
share sharp sheet shelf shell shift shirt shock shoot shore short shown sight since sixth sixty
sized skill sleep slice slide small smart smile smoke snake solid solve sorry sound south space
spare speak speed spend spice split spoke sport staff stage stake stand start state steam steel
stick still stock stone store storm story strip stuck study stuff style sugar suite sunny super
sweet table taken taste teach teeth thank theme there thick thing think third those three threw
throw tiger tight times tired title today topic total touch tough tower track trade train treat
trend trial tribe trick truck truly trust truth twice uncle under union unity until upper upset
urban usage usual valid value video virus visit vital voice waste watch water wheel where which
while white whole whose woman world worry worse worst worth would wound write wrong wrote yield
young youth zebra
"""
WORDS = tuple(_LIST.split())
# The rewards of Game, whose actions are numbers; here they are words.
STEP = -0.1
SOLVED = 10.0
RIGHT = "GGGGG"


@lru_cache(maxsize=4)
def words_of(split: str) -> tuple[str, ...]:
    """The words of a split, in an order that only their letters decide."""
    return shuffled((word for word in WORDS if belongs(word, split)), str)


# Room for every pair of listed words: 483 * 483 are 233,289.
@lru_cache(maxsize=500_000)
def mark(guess: str, word: str) -> str:
    """The answer to a guess, a sign for each letter.

    G is the right place, Y another place, _ not in the word. A letter counts as often as it is in
    the word.

    >>> mark("speed", "eject"), mark("geese", "eject")
    ('__GY_', '_YG__')
    """
    # How often each letter of the word is left, once the letters in their right places are taken.
    left = Counter(w for g, w in zip(guess, word, strict=True) if g != w)
    marks = []
    for g, w in zip(guess, word, strict=True):
        if g != w and left[g]:
            left[g] -= 1
            marks.append("Y")
        else:
            marks.append("G" if g == w else "_")
    return "".join(marks)


@lru_cache(maxsize=20_000)
def best_guess(candidates: tuple[str, ...]) -> str:
    """The candidate whose answers tell the candidates apart best (most different answers)."""
    # Of equals the last in the alphabet, so that the choice is always the same.
    return max(
        candidates, key=lambda guess: (len({mark(guess, word) for word in candidates}), guess)
    )


class Wordle(TextTask[str]):
    """Guess the word; each guess is answered letter by letter.

    Args:
        max_turns: guesses, 6 or more.

    Raises:
        ValueError: fewer guesses than the solver needs for its hardest words.

    Any five letters count as a guess. Rewards: -0.1 a guess, +10 found. ``info``: success;
    candidates (words of the list that fit all answers); why (what is wrong with a guess that is no
    word of five letters).
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}
    max_actions_per_turn = 1
    turn_penalty = -STEP

    def __init__(self, max_turns: int = 6, render_mode: str | None = None) -> None:
        # The solver finds each listed word in 6 guesses at most, and needs all 6 for some.
        if max_turns < 6:
            raise ValueError(f"max_turns={max_turns}: some words need 6 guesses")
        self.max_turns = self.max_actions = max_turns
        self.render_mode = render_mode
        # A line for each guess, the longest of 36 characters.
        self.observation_space = text_space(40 * max_turns)
        self.action_space = gym.spaces.Text(5, min_length=5, charset="abcdefghijklmnopqrstuvwxyz")

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        return (
            "You play Wordle: find a common English word of five letters. Each guess is answered "
            "letter by letter: G the letter is right, Y it belongs to another place, _ it is not "
            "in the word."
        )

    def instance_count(self, split: str) -> int:
        """The words of a split."""
        return len(words_of(split))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a word of ``options["split"]`` (``train`` where it is left out).

        Consecutive seeds go through a held-out split, each word once.
        """
        super().reset(seed=seed)
        split = requested_split(options)
        if split == "train":
            self.draw(split, lambda: WORDS[self.np_random.integers(len(WORDS))], str)
        else:
            self.instance = pick(words_of(split), split, seed, self.np_random)
        self.word = self.instance
        # A line for each guess so far, which is all that the player sees.
        self.lines: list[str] = []
        self.candidates = WORDS
        return self.render(), {"success": False, "candidates": len(WORDS), "why": None}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One guess; see the class for rewards and info."""
        guess = action.strip().lower()
        answer = ""
        why = None
        if len(guess) == 5 and guess.isascii() and guess.isalpha():
            answer = mark(guess, self.word)
            # A word fits if it would have given the same answer.
            self.candidates = tuple(w for w in self.candidates if mark(guess, w) == answer)
            self.lines.append(f"{' '.join(guess)}: {' '.join(answer)}")
        else:
            why = "a guess has five letters from a to z"
            self.lines.append("not a guess: five letters are needed")
        success = answer == RIGHT
        out = len(self.lines) >= self.max_turns and not success
        info = {"success": success, "candidates": len(self.candidates), "why": why}
        return self.render(), STEP + (SOLVED if success else 0.0), success, out, info

    def render(self) -> str:  # type: ignore[override]
        """The guesses so far and their answers."""
        return "\n".join(self.lines) or "No guess yet."

    def solve(self) -> list[str]:
        """The next guess of the solver, as a plan of one guess."""
        return [best_guess(self.candidates)] if self.candidates else [self.word]

    def guess(self, rng: np.random.Generator) -> list[str]:
        """A random word of the list."""
        return [WORDS[rng.integers(len(WORDS))]]

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[str]]:
        """Any word that fits all answers, with what is known as its thought.

        The thought is the letters whose place is known, the others that belong to the word, and the
        guess letter by letter.
        """
        # Which of them the solver takes is a search, which nobody learns from its guesses.
        fitting = self.candidates or (self.word,)
        word = fitting[rng.integers(len(fitting))]
        placed = ["_"] * 5
        other = set[str]()
        # The line of a reply that is no guess has no G or Y, and so tells nothing.
        for line in self.lines:
            letters, _, marks = line.partition(": ")
            for place, (letter, sign) in enumerate(
                zip(letters.split(), marks.split(), strict=False)
            ):
                if sign == "G":
                    placed[place] = letter
                elif sign == "Y":
                    other.add(letter)
        known = f"{' '.join(placed)}, {' '.join(sorted(other))}: " if self.lines else ""
        return known + " ".join(word), [word]
