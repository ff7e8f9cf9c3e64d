"""Stories of sums: word problems written by a seeded generator, with the steps that solve them.

A kind of story is a function. It draws its numbers, says its sentences, works out the answer step
by step, and returns it. Numbers are drawn so that every value on the way is a whole number above 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

NAMES = tuple("Alba Boris Chen Dana Emil Fatima Goran Hana Igor Julia Kofi Lena Mira Noor".split())
THINGS = tuple(
    "apples books buttons candles cards coins eggs marbles pencils shells stamps toys".split()
)
PLACES = ("baskets", "boxes", "drawers", "jars", "shelves", "bags")
GOODS = ("bread", "cake", "cheese", "honey", "tea", "soup")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")


@dataclass
class Story:
    """A problem that is being written: its sentences, and the steps of its solution."""

    rng: np.random.Generator
    sentences: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def number(self, low: int, high: int) -> int:
        """A uniform whole number from ``low`` to ``high``, both included."""
        return int(self.rng.integers(low, high + 1))

    def choice(self, options: tuple[str, ...], count: int = 1) -> list[str]:
        """``count`` different ones of ``options``, in random order."""
        return [options[i] for i in self.rng.permutation(len(options))[:count]]

    def say(self, sentence: str) -> None:
        """Add a sentence."""
        self.sentences.append(sentence)

    def work(self, a: int, operator: str, b: int) -> int:
        """One step of the solution: notes it as text, such as ``3 + 4 = 7``, and returns its value.

        Args:
            a: the left number.
            operator: one of ``+-*/``; divisions must come out even.
            b: the right number.
        """
        if operator == "/":
            assert a % b == 0
            value = a // b
        else:
            value = {"+": a + b, "-": a - b, "*": a * b}[operator]
        self.steps.append(f"{a} {operator} {b} = {value}")
        return value


def collection(s: Story) -> int:
    """A number of things that grows and shrinks."""
    name, other = s.choice(NAMES, 2)
    (things,) = s.choice(THINGS)
    have = s.number(5, 40)
    s.say(f"{name} has {have} {things}.")
    # One to three events of one step, or of two for packs: a solution of up to six steps, the
    # longest of any story. An event that the present number is too small or too large for becomes
    # packs.
    for _ in range(s.number(1, 3)):
        kind = s.number(0, 3)
        if kind == 0:
            more = s.number(2, 30)
            s.say(f"{other} gives {name} {more} more.")
            have = s.work(have, "+", more)
        elif kind == 1 and have > 4:
            # At least two are left.
            less = s.number(1, have - 2)
            s.say(f"{name} loses {less} of them.")
            have = s.work(have, "-", less)
        # The bound keeps repeated doubling small.
        elif kind == 2 and have < 200:
            s.say(f"Then {name} finds as many as that again.")
            have = s.work(have, "*", 2)
        else:
            boxes = s.number(2, 6)
            each = s.number(2, 9)
            s.say(f"{name} buys {boxes} packs of {each} {things} each.")
            have = s.work(have, "+", s.work(boxes, "*", each))
    s.say(f"How many {things} does {name} have now?")
    return have


def sharing(s: Story) -> int:
    """Things shared out evenly."""
    (name,) = s.choice(NAMES)
    (things,) = s.choice(THINGS)
    (places,) = s.choice(PLACES)
    # The total is a product, so that it can be shared evenly; the first colour is any part of it.
    parts = s.number(2, 9)
    each = s.number(2, 12)
    first = s.number(1, parts * each - 1)
    s.say(f"{name} has {first} red {things} and {parts * each - first} blue {things}.")
    s.say(f"{name} puts all of them evenly into {parts} {places}.")
    have = s.work(s.work(first, "+", parts * each - first), "/", parts)
    if s.number(0, 1) and have > 1:
        taken = s.number(1, have - 1)
        s.say(f"Then {taken} are taken out of each.")
        have = s.work(have, "-", taken)
    s.say(f"How many {things} are in each of the {places} in the end?")
    return have


def shopping(s: Story) -> int:
    """What a purchase costs, or what change there is."""
    (name,) = s.choice(NAMES)
    first, second = s.choice(GOODS, 2)
    n = s.number(2, 9)
    m = s.number(2, 9)
    price = s.number(2, 9)
    other = s.number(2, 9)
    s.say(
        f"A portion of {first} costs {price} dollars and a portion of {second} costs {other}"
        " dollars."
    )
    s.say(f"{name} buys {n} portions of {first} and {m} portions of {second}.")
    cost = s.work(s.work(n, "*", price), "+", s.work(m, "*", other))
    if s.number(0, 1):
        # The purse is built from the cost, so that it always suffices.
        purse = cost + s.number(1, 30)
        s.say(f"How many dollars are left of {purse}?")
        return s.work(purse, "-", cost)
    s.say("How many dollars does it cost?")
    return cost


def working(s: Story) -> int:
    """Wages by the hour over several days."""
    (name,) = s.choice(NAMES)
    days = s.choice(DAYS, s.number(2, 3))
    wage = s.number(6, 20)
    hours = [s.number(2, 8) for _ in days]
    s.say(f"{name} earns {wage} dollars an hour.")
    worked = [f"{h} hours on {day}" for day, h in zip(days, hours, strict=True)]
    s.say(f"{name} works {', '.join(worked)}.")
    # The hours are added first, so that one product gives the wages.
    total = hours[0]
    for h in hours[1:]:
        total = s.work(total, "+", h)
    earned = s.work(total, "*", wage)
    if s.number(0, 1):
        # Something is always left.
        spent = s.number(1, earned - 1)
        s.say(f"{name} spends {spent} dollars of that.")
        earned = s.work(earned, "-", spent)
    s.say(f"How many dollars of these wages does {name} have?")
    return earned


def ages(s: Story) -> int:
    """Ages that follow from one another."""
    name, other, third = s.choice(NAMES, 3)
    age = s.number(3, 12)
    times = s.number(2, 4)
    gap = s.number(2, 9)
    years = s.number(2, 15)
    s.say(f"{name} is {age} years old. {other} is {times} times as old as {name}.")
    s.say(f"{third} is {gap} years older than {other}.")
    old = s.work(s.work(age, "*", times), "+", gap)
    if s.number(0, 1):
        s.say(f"How old will {third} be in {years} years?")
        return s.work(old, "+", years)
    s.say(f"How old is {third}?")
    return old


def travel(s: Story) -> int:
    """Distances from speeds and times."""
    (name,) = s.choice(NAMES)
    speed = s.number(20, 60)
    hours = s.number(2, 5)
    slow = s.number(3, 15)
    more = s.number(2, 4)
    s.say(
        f"{name} drives {hours} hours at {speed} miles an hour and then cycles {more} hours at"
        f" {slow} miles an hour."
    )
    far = s.work(s.work(speed, "*", hours), "+", s.work(slow, "*", more))
    if s.number(0, 1):
        # The whole way is built from what is left of it.
        rest = s.number(5, 60)
        s.say(f"The whole way has {far + rest} miles. How many miles are left?")
        return s.work(far + rest, "-", far)
    s.say("How many miles is that together?")
    return far


def garden(s: Story) -> int:
    """Rows of plants, some of which do not come up."""
    (name,) = s.choice(NAMES)
    rows = s.number(3, 12)
    each = s.number(4, 15)
    # In every row at least two come up.
    lost = s.number(1, each - 2)
    s.say(f"{name} plants {rows} rows of {each} seeds. In every row {lost} seeds do not come up.")
    grown = s.work(s.work(each, "-", lost), "*", rows)
    if s.number(0, 1):
        sold = s.number(1, grown - 1)
        s.say(f"{name} sells {sold} of the plants. How many plants does {name} keep?")
        return s.work(grown, "-", sold)
    s.say("How many plants come up?")
    return grown


def fractions(s: Story) -> int:
    """A share of a whole, and what is left of it."""
    (name,) = s.choice(NAMES)
    (things,) = s.choice(THINGS)
    # The whole is built from the share, so that it divides evenly.
    part = s.number(2, 6)
    unit = s.number(2, 15)
    word = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 6: "a sixth"}[part]
    whole = part * unit
    s.say(f"There are {whole} {things} on a table. {name} takes {word} of them.")
    taken = s.work(whole, "/", part)
    kind = s.number(0, 2)
    if kind == 0:
        s.say(f"How many {things} are left on the table?")
        return s.work(whole, "-", taken)
    extra = s.number(1, 20)
    s.say(f"{name} had {extra} {things} before.")
    have = s.work(taken, "+", extra)
    s.say(f"How many {things} does {name} have now?")
    return have


# The kinds of story. Each is drawn equally often, before the limits on the steps.
TEMPLATES: tuple[Callable[[Story], int], ...] = (
    *(collection, sharing, shopping, working, ages, travel, garden, fractions),
)


@dataclass(frozen=True)
class Problem:
    """A word problem.

    Attributes:
        question: its text.
        answer: a whole number above 0.
        steps: the operations that lead there, as text.
        template: the name of its kind of story.
    """

    question: str
    answer: int
    steps: tuple[str, ...]
    template: str

    @property
    def content(self) -> str:
        """The problem without its words, which decides its split.

        Two that differ in names or things only are the same problem.
        """
        return f"{self.template}: {', '.join(self.steps)}"


def write_problem(rng: np.random.Generator, min_steps: int = 1, max_steps: int = 9) -> Problem:
    """A problem whose solution takes a given number of steps.

    Args:
        rng: what it is drawn from.
        min_steps: the shortest solution, in operations; no story has more than 6.
        max_steps: the longest solution. No story reaches the default of 9, so it is no limit.
    """
    # Stories are written until one has the wanted length: most know theirs only at their end.
    while True:
        story = Story(rng)
        template = TEMPLATES[rng.integers(len(TEMPLATES))]
        answer = template(story)
        if min_steps <= len(story.steps) <= max_steps:
            return Problem(" ".join(story.sentences), answer, tuple(story.steps), template.__name__)
