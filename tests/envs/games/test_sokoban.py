"""Sokoban: gym-sokoban's dynamics, exact solver, levels, pictures."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen_lite.envs.games.sokoban.levels import (
    Level,
    gym_sokoban_level,
    parse_level,
    read_boxoban,
    reverse_play,
)
from ragen_lite.envs.games.sokoban.solver import SearchLimit
from ragen_lite.envs.games.sokoban.task import Sokoban
from ragen_lite.envs.splits import SPLITS, split_of

CORRIDOR = parse_level("#######\n#@ $ .#\n#######")


def loaded(text: str, **options: Any) -> Sokoban:
    env = Sokoban(**{"max_actions": 100, "max_turns": 100, **options})
    env.load(parse_level(text))
    return env


def room(seed: int, boxes: int, size: int = 7) -> Level:
    rng = np.random.default_rng(seed)
    while True:
        level = reverse_play(rng, size, size, boxes, pulls=3 * boxes)
        if level is not None:
            return level


def codes(env: Sokoban) -> np.ndarray[Any, Any]:
    """The room in gym-sokoban's numbers."""
    flat = [
        0 if wall else 2 if i in env.board.targets else 1 for i, wall in enumerate(env.board.walls)
    ]
    for box in env.placed:
        flat[box] = 3 if box in env.board.targets else 4
    flat[env.player] = 5
    return np.array(flat).reshape(-1, env.board.width)


def brute_force(env: Sokoban) -> float:
    """Fewest actions to a solution, by plain breadth-first search over single actions."""
    start = (env.player, env.placed)
    seen, queue = {start}, deque([(start, 0)])
    while queue:
        state, cost = queue.popleft()
        if state[1] <= env.board.targets:
            return cost
        for action in range(4):
            after = env.board.move(*state, action)
            if after not in seen:
                seen.add(after)
                queue.append((after, cost + 1))
    return math.inf


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    boxes=st.integers(1, 4),
    actions=st.lists(st.integers(0, 3), max_size=60),
)
def test_it_agrees_with_gym_sokoban_step_by_step(
    gym_sokoban_env: Any, seed: int, boxes: int, actions: list[int]
) -> None:
    level = room(seed, boxes)
    ours = Sokoban(max_actions=40, max_turns=40, boxes=boxes, regret=False)
    ours.load(level)
    theirs = gym_sokoban_env(dim_room=(7, 7), num_boxes=boxes, max_steps=40, reset=False)
    theirs.render = lambda mode: None  # pictures are compared elsewhere
    theirs.room_fixed = np.where(
        codes(ours) == 0, 0, np.isin(np.arange(49), list(level.board.targets)).reshape(7, 7) + 1
    )
    theirs.room_state = codes(ours)
    theirs.player_position = np.array(divmod(level.player, 7))
    theirs.num_env_steps, theirs.reward_last, theirs.boxes_on_target = 0, 0, 0
    for action in actions:
        _, reward, terminated, truncated, _ = ours.step(action)
        _, their_reward, done, _ = theirs.step(action + 1)
        assert reward == pytest.approx(their_reward, abs=1e-12)
        assert (terminated or truncated) == done
        assert (codes(ours) == theirs.room_state).all()
        if done:
            break


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), boxes=st.integers(1, 2))
def test_the_solver_finds_the_brute_force_optimum_from_anywhere(seed: int, boxes: int) -> None:
    env = Sokoban(height=6, width=6, boxes=boxes, max_actions=50, max_turns=50)
    env.load(room(seed, boxes, size=6))
    rng = np.random.default_rng(seed)
    for _ in range(6):
        best = brute_force(env)
        assert env.cost_to_go() == best
        solution = env.board.solve(env.player, env.placed)
        assert (math.inf if solution is None else len(solution)) == best
        table = env.solve()
        assert (math.inf if table is None else len(table)) == best
        if env.step(int(rng.integers(4)))[2]:
            break


def test_rewards_of_a_solving_push_and_of_pushing_off() -> None:
    env = loaded("########\n#@$. $.#\n########")
    assert env.step(3)[1] == pytest.approx(-0.1 + 1)
    assert env.step(3)[1] == pytest.approx(-0.1 - 1)
    env.load(CORRIDOR)
    assert [round(env.step(3)[1], 6) for _ in range(3)] == [-0.1, -0.1, 10.9]


def test_regret_counts_wasted_actions_and_marks_dead_locks() -> None:
    env = Sokoban(max_actions=100, max_turns=100)
    _, info = env.load(parse_level("######\n#@ $.#\n#    #\n######"))
    assert info["optimal_cost"] == 2 and not info["deadlock"]
    assert env.step(1)[4]["regret"] == 2.0  # down: the best is now up, right, right
    assert env.step(0)[4]["regret"] == 0.0
    env.load(parse_level("######\n#    #\n#@$ .#\n#    #\n######"))
    env.step(1), env.step(3)
    info = env.step(0)[4]  # the box is pushed up against the wall, whose row has no target
    assert info["regret"] == math.inf and info["deadlock"] and info["cost_to_go"] == math.inf
    assert env.step(1)[4]["regret"] == 0.0 and env.solve() is None


def test_dead_locks_of_several_boxes_are_found() -> None:
    env = loaded("######\n#  . #\n#@$$ #\n#  . #\n######")
    assert env.solve() is not None
    two_by_two = loaded("######\n#$$ .#\n#$$..#\n#@  .#\n######")
    assert two_by_two.solve() is None and two_by_two.cost_to_go() == math.inf


def test_a_room_beyond_the_search_has_no_regret_rather_than_zero() -> None:
    env = loaded("########\n#@  $ .#\n# $  . #\n#      #\n########")
    with pytest.raises(SearchLimit, match="limit"):
        env.board.solve(env.player, env.placed, limit=1)
    solve = env.board.solve
    object.__setattr__(env.board, "solve", lambda *state, limit: solve(*state, limit=1))
    env._known.clear()
    assert env.cost_to_go() is None


def test_the_text_of_a_hand_made_room() -> None:
    level = parse_level("######\n#@$. #\n#.*  #\n#$   #\n######")
    env = Sokoban(boxes=3, max_actions=30, max_turns=30)
    assert env.load(level)[0] == (
        "# # # # # #\n# P X O _ #\n# O √ _ _ #\n# X _ _ _ #\n# # # # # #\nP (1,1), X (1,2) (3,1), O (1,3) (2,1), √ (2,2)"
    )
    env.observation = "coords"
    assert env.load(level)[0] == "P (1,1), X (1,2) (3,1), O (1,3) (2,1), √ (2,2)"
    env.observation = "grid"
    assert env.load(parse_level("#####\n#+$ #\n#####"))[0] == "# # # # #\n# S X _ #\n# # # # #"


def test_generated_rooms_keep_to_their_bounds() -> None:
    env = Sokoban(min_cost=4, max_actions=9, max_turns=9)
    costs = {env.reset(seed=s)[1]["optimal_cost"] for s in range(200)}
    assert min(costs) == 4 and max(costs) == 9
    easy = Sokoban(max_cost=6)
    assert {easy.reset(seed=s)[1]["optimal_cost"] for s in range(50)} == {3, 4, 5, 6}
    several = Sokoban(height=7, width=8, boxes=2, max_actions=25, max_turns=9)
    for seed in range(10):
        text, info = several.reset(seed=seed)
        assert (
            3 <= info["optimal_cost"] <= 25 and text.count("X") == 3
        )  # two in the room, one before their places


def test_golden_rooms_are_the_same_everywhere() -> None:
    env = Sokoban()
    text = "\n".join(env.reset(seed=s, options={"split": "test"})[0] for s in range(100))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == GOLDEN


GOLDEN = "004c61463e2d437f"


def test_gym_sokobans_generator_is_a_function_of_the_seed_and_leaves_the_global_generators_alone() -> (
    None
):
    before = np.random.get_state()[1].tolist()  # type: ignore[union-attr,index]
    rooms = [gym_sokoban_level(np.random.default_rng(5), 7, 7, 2).content for _ in range(2)]
    assert rooms[0] == rooms[1]
    assert np.random.get_state()[1].tolist() == before  # type: ignore[union-attr,index]
    env = Sokoban(levels="gym_sokoban", height=6, width=6, max_actions=20)
    assert env.reset(seed=1)[0] == env.reset(seed=1)[0] != env.reset(seed=2)[0]


def test_boxoban_files(tmp_path: Path) -> None:
    path = tmp_path / "000.txt"
    path.write_text("; 0\n#####\n#@$.#\n#####\n\n; 1\n######\n#@ $.#\n######\n")
    assert [level.content for level in read_boxoban(str(path))] == [
        "#####\n#@$.#\n#####",
        "######\n#@ $.#\n######",
    ]
    env = Sokoban(levels=str(path))
    for level in read_boxoban(str(path)):
        split = split_of(level.content)
        shown = {env.reset(seed=s, options={"split": split})[0] for s in range(20)}
        assert env.load(level)[0] in shown
        rows = level.content.split("\n")
        assert f"a room of {len(rows)}x{len(rows[0])} squares" in env.instructions
    empty = next(
        s for s in SPLITS if s not in {split_of(level.content) for level in read_boxoban(str(path))}
    )
    with pytest.raises(ValueError, match=f"no level in the {empty} split"):
        env.reset(seed=0, options={"split": empty})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("#####\n#@$.#\n####", r"level 7, row 3: 4 squares, but the first row has 5"),
        ("#####\n#@$x#\n#####", r"row 2: unknown symbol 'x'"),
        ("#####\n#@$. \n#####", r"row 2: the room must be closed by walls"),
        ("#####\n# $.#\n#####", r"0 players"),
        ("######\n#@$$.#\n######", r"2 boxes and 1 targets"),
    ],
)
def test_an_odd_level_file_is_refused_by_row(tmp_path: Path, rows: str, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(f"; 7\n{rows}\n")
    with pytest.raises(ValueError, match=message):
        Sokoban(levels=str(path))


def test_a_missing_or_empty_level_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read the level file"):
        Sokoban(levels=str(tmp_path / "none.txt"))
    (tmp_path / "empty.txt").write_text("; 0\n")
    with pytest.raises(ValueError, match="holds no level"):
        Sokoban(levels=str(tmp_path / "empty.txt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 3}, "4x4"),
        ({"observation": "gird"}, "grid, coords, grid_coords"),
        ({"min_cost": 30}, "budgets"),
        ({"min_cost": 5, "max_cost": 4}, "min_cost 5 <= max_cost 4"),
        ({"max_actions": 26}, "budgets"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sokoban(**options)


def test_rooms_that_cannot_be_are_given_up_in_a_sentence() -> None:
    for options in (
        {"height": 4, "width": 4},
        {"height": 4, "width": 4, "boxes": 2},
        {"levels": "gym_sokoban", "height": 4, "width": 4, "boxes": 3},
    ):
        with pytest.raises(RuntimeError, match="take fewer|allow more"):
            Sokoban(**options).reset(seed=0)


def test_pictures_are_gym_sokobans(gym_sokoban_env: Any) -> None:
    from gym_sokoban.envs.render_utils import room_to_rgb

    env = Sokoban(render_mode="rgb_array", boxes=2, max_actions=40, max_turns=40)
    env.load(parse_level("######\n#@$. #\n#.*  #\n#$   #\n######"))
    fixed = np.isin(np.arange(30), list(env.board.targets)).reshape(5, 6) + 1
    for action in (1, 0, 3, 1):
        picture = env.render()
        assert (
            isinstance(picture, np.ndarray)
            and picture.shape == (80, 96, 3)
            and picture.dtype == np.uint8
        )
        assert (picture == room_to_rgb(codes(env), fixed)).all()
        env.step(action)


def test_the_teacher_at_its_best_is_the_solver() -> None:
    env = Sokoban()
    for seed in range(50):
        _, info = env.reset(seed=seed)
        rng, actions = np.random.default_rng(0), 0
        while not info["success"]:
            thought, turn = env.demonstrate(rng)
            assert thought.startswith("push ") and 1 <= len(turn) <= env.max_actions_per_turn
            for action in turn:
                info = env.step(action)[4]
                actions += 1
        assert actions == info["optimal_cost"]
