"""The games' rules and optima, against counts and positions worked out by hand or known from the literature."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest

from ragen_lite.envs.answers.arithmetic import Arithmetic
from ragen_lite.envs.dialogue import Dialogue
from ragen_lite.envs.games.blackjack import Blackjack, dealer_ends, hand_values
from ragen_lite.envs.games.cliff_walking import CliffWalking
from ragen_lite.envs.games.frozen_lake import FrozenLake, distance
from ragen_lite.envs.games.game_2048 import Game2048, slid, slide
from ragen_lite.envs.games.hanoi import Hanoi, distances
from ragen_lite.envs.games.minesweeper import HIDDEN, Minesweeper, risks
from ragen_lite.envs.games.rubik import ACTIONS, SOLVED, Rubik, number, turn
from ragen_lite.envs.games.rubik import distances as cube_distances
from ragen_lite.envs.games.sudoku import SHAPES, Sudoku
from ragen_lite.envs.games.taxi import Taxi
from ragen_lite.envs.games.wordle import RIGHT, WORDS, Wordle, best_guess, mark

# ---- Gymnasium's own ----


def test_costs_are_breadth_first_distances() -> None:
    cliff = CliffWalking()
    cliff.reset(seed=0)
    # From the corner: up, eleven to the right, down.
    cliff.state = cliff.inner.s = 36
    assert cliff.cost_to_go() == 13 and cliff.solve() == [0, *[1] * 11, 2]
    taxi = Taxi()
    taxi.reset(seed=0)
    taxi.state = taxi.inner.s = taxi.inner.encode(
        0, 0, 0, 1
    )  # on Red with the passenger; Green is (0,4)
    # Walls stand between columns 1 and 2 in the upper rows: two down, four right, two up, and the two of the passenger.
    assert taxi.cost_to_go() == 2 + 4 + 2 + 2


def test_a_fall_costs_one_and_its_way_back() -> None:
    cliff = CliffWalking()
    cliff.reset(seed=0)
    cliff.state = cliff.inner.s = 36
    cliff.begin()
    text, reward, terminated, _, info = cliff.step(1)
    assert (reward, terminated, info["regret"], info["native_reward"]) == (-1.1, False, 1.0, -100.0)
    assert "P (3,0)" in text


def test_a_hole_is_lost_for_good() -> None:
    lake = FrozenLake()
    for seed in range(50):
        lake.reset(seed=seed)
        solution = lake.solve()
        assert solution is not None and len(solution) == distance(lake.map) == lake.optimal_cost
    lake.map = ("SFFG", "HHHH", "FFFF", "FFFF")
    lake.inner = gym.make("FrozenLake-v1", desc=list(lake.map), is_slippery=False).unwrapped
    lake._plan()
    lake.state, lake._won = lake.inner.reset(seed=0)[0], False
    lake.begin()
    assert lake.cost_to_go() == 3
    _, reward, terminated, _, info = lake.step(1)
    assert (
        terminated
        and info["regret"] == math.inf
        and info["deadlock"]
        and reward == pytest.approx(-0.1)
    )


def test_value_iteration_tells_the_chance_of_best_play() -> None:
    lake = FrozenLake(slippery=True)
    dialogue = Dialogue(lake)
    wins, promised = [], []
    for seed in range(400):
        _, info = dialogue.reset(seed=seed, options={"member": 0})
        promised.append(info["optimal_success"])
        over = False
        while not over:
            _, _, terminated, truncated, info = dialogue.step(
                dialogue.write("", lake.solve() or [])
            )
            assert info["regret"] == 0
            over = terminated or truncated
        wins.append(info["success"])
    error = 3 * math.sqrt(np.mean(np.array(promised) * (1 - np.array(promised))) / len(wins))
    assert abs(np.mean(wins) - np.mean(promised)) < error


def test_members_of_a_group_start_alike_and_slip_apart() -> None:
    dialogue = Dialogue(FrozenLake(slippery=True, size=6))
    ends = set()
    for member in range(8):
        first, _ = dialogue.reset(seed=5, options={"member": member})
        over = False
        for _ in range(6):
            if not over:
                last, _, terminated, truncated, _ = dialogue.step(
                    "<think></think><answer>Right</answer>"
                )
                over = terminated or truncated
        ends.add(last)
        assert first == dialogue.reset(seed=5)[0]
    assert len(ends) > 2


def test_blackjack_values() -> None:
    assert sum(dealer_ends(6, False)) == pytest.approx(1)
    # The published chance of the dealer to go bust with a 6, endless deck, stand on every 17: 42.3%.
    assert dealer_ends(6, False)[5] == pytest.approx(0.4232, abs=2e-4)
    # Basic strategy without doubling and splitting.
    stand = [(20, 10, False), (17, 10, False), (13, 2, False), (12, 4, False), (19, 10, True)]
    hit = [
        (16, 10, False),
        (12, 2, False),
        (12, 7, False),
        (17, 6, True),
        (11, 6, False),
        (18, 9, True),
    ]
    for hand in stand:
        assert int(np.argmax(hand_values(*hand))) == 0, hand
    for hand in hit:
        assert int(np.argmax(hand_values(*hand))) == 1, hand
    env = Blackjack()
    env.reset(seed=0)
    assert env.solve() is not None and env.step(0)[1] in (-1.0, 0.0, 1.0, 1.5)


# ---- puzzles ----


def test_hanoi_distances() -> None:
    for disks in (1, 3, 5):
        known = distances(disks)
        assert len(known) == 3**disks and known[(0,) * disks] == 2**disks - 1 == max(known.values())
    env = Hanoi()
    env.reset(seed=1)
    env.pegs = (0, 0, 1)  # 1 and 2 on A, 3 on B
    assert env.text() == "A: 2 1\nB: 3\nC: -"
    before = env.pegs
    env.step(env.action_names.index("BA"))  # 3 onto 1 is not carried out
    assert env.pegs == before


def test_the_cube_has_as_many_states_at_each_distance_as_is_known() -> None:
    counts = np.bincount(cube_distances())
    assert counts.tolist() == [
        *(
            1,
            6,
            27,
            120,
            534,
            2256,
            8969,
            33058,
            114149,
            360508,
            930588,
            1350852,
            782536,
            90280,
            276,
        ),
    ]


def test_turns_of_the_cube() -> None:
    for action in range(6):
        state = SOLVED
        for _ in range(4):
            state = turn(state, action)
        assert state == SOLVED and turn(turn(SOLVED, action), action ^ 1) == SOLVED
    env = Rubik()
    env.reset(seed=0)
    env.state = turn(SOLVED, ACTIONS.index("R"))
    assert env.text() == "U W G W G\nR R R R R\nF G Y G Y\nD Y B Y B\nL O O O O\nB W B W B"
    assert env.cost_to_go() == 1 and env.solve() == [ACTIONS.index("R'")]
    assert number(SOLVED) < 5040 * 729


def test_every_sudoku_has_exactly_one_solution() -> None:
    for size, seeds in ((4, 100), (9, 15)):
        env = Sudoku(size=size)
        for seed in range(seeds):
            env.reset(seed=seed)
            assert SHAPES[size].solutions(env.puzzle, 2) == [env.solution]
            for unit in range(3 * size):
                cells = [
                    env.solution[c] for c, units in enumerate(SHAPES[size].units) if unit in units
                ]
                assert sorted(cells) == list(range(1, size + 1))


def test_filling_a_cell_again_and_again_gains_nothing() -> None:
    env = Sudoku()
    env.reset(seed=0)
    right = env.solve()[0]
    wrong = right + 1 if right % 4 < 3 else right - 1
    rewards = [env.step(action)[1] for action in (right, wrong, right, wrong)]
    assert rewards == pytest.approx([0.9, -1.1, 0.9, -1.1])
    given = next(c for c, digit in enumerate(env.puzzle) if digit)
    assert env.step(given * 4)[1] == pytest.approx(-0.1) and env.grid[given] == env.puzzle[given]


def test_2048_slides() -> None:
    assert slide((1, 1, 1, 1)) == ((2, 2, 0, 0), (2, 2))
    assert slide((2, 1, 1, 2)) == ((2, 2, 2, 0), (2,))  # what has merged does not merge again
    assert slide((0, 3, 0, 3)) == ((4, 0, 0, 0), (4,))
    board = (1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0)
    assert slid(board, 0, 4)[0][::4] == (2, 2, 0, 0) and slid(board, 2, 4)[0][::4] == (0, 0, 2, 2)
    env = Game2048()
    env.reset(seed=0)
    env.board = (1, 0, 0, 0) * 4
    assert (
        env.step(3)[1] == pytest.approx(-0.1) and env.board == (1, 0, 0, 0) * 4
    )  # nothing moves, nothing comes
    env.board = (5, 5, *(0,) * 14)
    assert env.step(3)[1:4] == (pytest.approx(-0.1 + 10 + 0.6), True, False)


def test_minesweeper_risks() -> None:
    # One mine around the corner: three hidden squares alike.
    assert risks((1, HIDDEN, HIDDEN, HIDDEN), 2, 2, 1) == pytest.approx(
        {1: 1 / 3, 2: 1 / 3, 3: 1 / 3}
    )
    # A row of 0 1 ?: the hidden one is the mine.
    assert risks((0, 1, HIDDEN), 1, 3, 1) == {2: 1.0}
    # # # # over 1 2 1: the outer ones are mines, the middle one is safe (1 on the left touches two, 2 all three).
    found = risks((HIDDEN, HIDDEN, HIDDEN, 1, 2, 1), 2, 3, 2)
    assert found == {0: 1.0, 1: 0.0, 2: 1.0}


def test_minesweeper_never_needs_a_guess() -> None:
    env = Minesweeper(rows=5, columns=5, mines=5, max_turns=6)
    for seed in range(40):
        env.reset(seed=seed)
        over = False
        while not over:
            safe = env._safe(env.view)
            assert safe
            _, _, over, truncated, info = env.step(safe[0])
            assert info["regret"] == 0 and not truncated
        assert info["success"]


def test_wordle_marks_and_words() -> None:
    assert mark("allow", "loyal") == "YYYY_" and mark("llama", "loyal") == "GYY__"
    assert mark("eerie", "crane") == "__Y_G" and mark("crane", "crane") == RIGHT
    assert all(len(word) == 5 and word.isascii() and word.islower() for word in WORDS) and len(
        set(WORDS)
    ) == len(WORDS)


def test_the_solver_finds_every_word_in_six() -> None:
    most = 0
    for word in WORDS:
        candidates, guesses, answer = WORDS, 0, ""
        while answer != RIGHT:
            guess = best_guess(candidates)
            answer, guesses = mark(guess, word), guesses + 1
            candidates = tuple(w for w in candidates if mark(guess, w) == answer)
        most = max(most, guesses)
    assert most <= 6


def test_a_guess_that_is_none_costs_its_turn() -> None:
    env = Wordle()
    env.reset(seed=0)
    for answer in ("cat", "ünder", "a b c", "abcde1", "<think>"):
        text, reward, _, _, info = env.step(answer)
        assert reward == -0.1 and "five letters" in text and info["why"]
    assert env.step(env.word.upper())[4]["success"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FrozenLake(size=1), "2 to 32"),
        (
            lambda: FrozenLake(min_cost=50),
            "min_cost=50, max_cost=10: a way of a 4x4 lake has 1 to 15",
        ),
        (lambda: FrozenLake(max_cost=11), "max_cost=11: .* 10 actions are allowed"),
        (lambda: Hanoi(max_disks=9), "1 to 8"),
        (lambda: Arithmetic(reward={"a": 1}), "unknown reward .* choose one of tinyzero"),  # type: ignore[arg-type]
        (lambda: Hanoi(max_disks=6, max_turns=5), "can need 63"),
        (lambda: Rubik(max_scramble=15), "1 to 14"),
        (lambda: Rubik(max_scramble=13), "raise the budgets"),
        (lambda: Sudoku(size=5), "4 or 9"),
        (lambda: Sudoku(max_actions=3), "max_actions=3 cannot fill"),
        (lambda: Game2048(target=100), "power of two"),
        (lambda: Game2048(target=2048), "about 1022 slides"),
        (lambda: Minesweeper(mines=9), "a quarter"),
        (lambda: Wordle(max_turns=3), "need 6"),
        (lambda: CliffWalking(max_turns=1), "contradict"),
        (lambda: CliffWalking(max_turns=0), "above 0"),
        (lambda: FrozenLake(max_actions_per_turn=0), "above 0"),
        (lambda: FrozenLake(max_turns=2.5, max_actions=10), "2.5 turns or actions: a whole number"),  # type: ignore[arg-type]
        (lambda: Hanoi(max_turns="3"), "'3' turns or actions: a whole number"),  # type: ignore[arg-type]
        (lambda: Hanoi(max_actions_per_turn=True), "True turns or actions: a whole number"),
    ],
)
def test_options_that_cannot_work_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
