"""Knights and knaves: logic against brute force by hand, English read back, Logic-RL's totals."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen_lite.envs.answers.knights_knaves.english import (
    BadPuzzle,
    Statement,
    parse_puzzle,
    parse_statement,
    read_answer,
    say,
)
from ragen_lite.envs.answers.knights_knaves.puzzles import PERTURBATIONS, solutions
from ragen_lite.envs.answers.knights_knaves.task import KnightsKnaves
from ragen_lite.envs.dialogue import Dialogue

KNIGHTS = ("knight", "knave")


def holds(statement: Statement, honest: tuple[bool, ...]) -> bool:
    """A statement's truth, by its meaning."""
    kind, *parts = statement
    if kind == "telling-truth":
        return honest[parts[0]]
    if kind == "lying":
        return not honest[parts[0]]
    values = [holds(part, honest) for part in parts]
    return {
        "not": lambda: not values[0],
        "and": lambda: all(values),
        "or": lambda: any(values),
        "->": lambda: not values[0] or values[1],
        "<=>": lambda: values[0] == values[1],
    }[kind]()


def leaf(people: int) -> st.SearchStrategy[Statement]:
    return st.tuples(st.sampled_from(["telling-truth", "lying"]), st.integers(0, people - 1))


def statements(people: int) -> st.SearchStrategy[Statement]:
    def compound(inner: st.SearchStrategy[Statement]) -> st.SearchStrategy[Statement]:
        several = st.lists(inner, min_size=2, max_size=3)
        return st.one_of(
            st.tuples(st.just("not"), inner),
            st.tuples(st.sampled_from(["->", "<=>"]), inner, inner),
            st.tuples(st.sampled_from(["and", "or"]), several).map(
                lambda made: (made[0], *made[1])
            ),
        )

    return st.recursive(leaf(people), compound, max_leaves=6)


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 4).flatmap(lambda n: st.lists(statements(n), min_size=n, max_size=n)))
def test_solutions_are_those_of_brute_force(said: list[Statement]) -> None:
    everyone = product((False, True), repeat=len(said))
    wanted = {h for h in everyone if all(h[i] == holds(s, h) for i, s in enumerate(said))}
    assert set(solutions(said)) == wanted


@settings(max_examples=150, deadline=None)
@given(statements(3))
def test_english_is_read_back(statement: Statement) -> None:
    names = ("Ann", "Bob", "Cleo")
    assert parse_statement(say(statement, names, KNIGHTS), names, KNIGHTS) == statement


def test_puzzles_are_read_back_and_have_one_solution() -> None:
    for people in range(2, 9):
        env = KnightsKnaves(min_people=people, max_people=people, depth=3, width=3)
        for seed in range(15):
            text, _ = env.reset(seed=seed)
            names, said = parse_puzzle(text)
            assert (
                names == env.puzzle.names
                and said == env.puzzle.statements
                and solutions(said) == [env.puzzle.solution]
            )
            assert all(s != ("lying", i) for i, s in enumerate(said))


def test_logic_rls_own_wording_is_read() -> None:
    text = (
        "A very special island is inhabited only by knights and knaves. Knights always tell the truth, and knaves always "
        'lie. You meet 3 inhabitants: Michael, Zoey, and Ethan. Michael was heard saying, "Ethan is a knight if and only '
        'if Michael is a knight". "Zoey is a knight or Ethan is a knight," Zoey mentioned. In Ethan\'s words: "Michael is '
        'not a knave". So who is a knight and who is a knave?'
    )
    assert parse_puzzle(text) == (
        ("Michael", "Zoey", "Ethan"),
        (
            ("<=>", ("telling-truth", 2), ("telling-truth", 0)),
            ("or", ("telling-truth", 1), ("telling-truth", 2)),
            ("not", ("lying", 0)),
        ),
    )
    for broken in (
        text.replace("Ethan's", "Eve's"),
        text.replace("only by", "by"),
        text.replace("not a knave", "nice"),
        "",
    ):
        with pytest.raises(BadPuzzle):
            parse_puzzle(broken)


def test_a_full_stop_within_the_quotation_marks_ends_a_claim() -> None:
    text = (
        "A very special island is inhabited only by knights and knaves. Knights always tell the truth, and knaves always "
        'lie. You meet 2 inhabitants: Zoey, and Oliver. Zoey said, "Oliver is a knave." Oliver remarked, '
        '"Zoey is not\u00a0a knave." So who is a knight and who is a knave?'
    )
    assert parse_puzzle(text) == (
        ("Zoey", "Oliver"),
        (("lying", 1), ("not", ("lying", 0))),
    )


def test_an_answer_has_the_roles_own_article_and_any_spaces() -> None:
    names, roles = ("Mia", "Zoey"), ("knight", "angel")
    good = "Mia\u00a0is a\nknight, Zoey is an angel"
    assert read_answer(good, names, roles) == ["knight", "angel"]
    assert read_answer("Mia is an knight, Zoey is an angel", names, roles) is None
    assert read_answer("Mia is a knight, Zoey is a angel", names, roles) is None


def test_totals_are_logic_rls() -> None:
    env = Dialogue(KnightsKnaves(min_people=3, max_people=3))
    task = env.unwrapped
    for seed in range(30):
        env.reset(seed=seed)
        gold = task.solve()[0]
        flipped = gold.replace("knight", "KNI").replace("knave", "knight").replace("KNI", "knave")
        lines = gold.split("\n")

        def total(reply: str, seed: int = seed) -> float:
            env.reset(seed=seed)
            return float(env.step(reply)[1])

        def answer(text: str) -> str:
            return f"<think>hm</think><answer>{text}</answer>"

        assert total(answer(gold)) == 3
        assert total(answer(flipped)) == -0.5
        assert total(answer("\n".join(lines[:-1]))) == -1
        assert total(answer(gold.replace(" is a ", ": "))) == -1
        assert total(answer(gold + "\nEve is a knight")) == -1
        assert total(f"<think>hm<answer>{gold}</answer>") == -3
        assert total(answer(gold) + answer(gold)) == -3


def test_perturbed_puzzles() -> None:
    for change in PERTURBATIONS:
        plain, changed = (
            KnightsKnaves(min_people=3, max_people=4),
            KnightsKnaves(3, 4, perturb=change),
        )
        for seed in range(20):
            plain.reset(seed=seed)
            text, info = changed.reset(seed=seed)
            before, after = plain.puzzle, changed.puzzle
            names, said = parse_puzzle(text)
            assert solutions(said) == [after.solution] and changed.step(changed.solve()[0])[1] == 3
            if change in ("names", "roles", "flipped", "order"):
                assert (after.statements, after.solution) == (before.statements, before.solution)
                assert info["unperturbed"] == before.identities
            if change == "names":
                assert not set(names) & set(before.names)
            if change == "flipped":
                assert after.identities != before.identities and "Knights always lie" in text
            if change in ("statement", "leaf"):
                assert info["unperturbed"] != after.identities


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Ann is a knight, Bob is a knave", ["knight", "knave"]),
        ("(1) bob IS A KNIGHT (2) ANN is a knave", ["knave", "knight"]),
        ("Annabel is a knight, Bob is a knave", None),
        ("Ann is a knight or a knave, Bob is a knave", None),
        ("Ann and Bob are knights", None),
        ("Ann is a кnight, Bob is a knave", None),
        ("", None),
    ],
)
def test_answers(text: str, read: list[str] | None) -> None:
    assert read_answer(text, ("Ann", "Bob"), KNIGHTS) == read
