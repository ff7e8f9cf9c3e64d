"""ragen-lite: multi-turn reinforcement learning of LLM agents in Gymnasium text environments.

Importing this package registers the tasks with Gymnasium, as strings: no task, no torch is loaded.
"""

import os

import gymnasium

# OpenMP threads that spin long while they wait run several times slower than one beside any other
# busy process; ones that never spin halve the speed of small models on an idle machine. A thousand
# turns serve both.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"

TASKS = {
    "ragen_lite/Arithmetic-v0": "ragen_lite.envs.answers.arithmetic:Arithmetic",
    "ragen_lite/Bandit-v0": "ragen_lite.envs.games.bandit:Bandit",
    "ragen_lite/Blackjack-v0": "ragen_lite.envs.games.blackjack:Blackjack",
    "ragen_lite/CliffWalking-v0": "ragen_lite.envs.games.cliff_walking:CliffWalking",
    "ragen_lite/Countdown-v0": "ragen_lite.envs.answers.countdown:Countdown",
    "ragen_lite/FrozenLake-v0": "ragen_lite.envs.games.frozen_lake:FrozenLake",
    "ragen_lite/Game2048-v0": "ragen_lite.envs.games.game_2048:Game2048",
    "ragen_lite/Gem-v0": "ragen_lite.envs.adapters.gem:Gem",
    "ragen_lite/Hanoi-v0": "ragen_lite.envs.games.hanoi:Hanoi",
    "ragen_lite/KnightsKnaves-v0": "ragen_lite.envs.answers.knights_knaves.task:KnightsKnaves",
    "ragen_lite/Math-v0": "ragen_lite.envs.answers.math.task:Math",
    "ragen_lite/Minesweeper-v0": "ragen_lite.envs.games.minesweeper:Minesweeper",
    "ragen_lite/Mix-v0": "ragen_lite.envs.mix:Mix",
    "ragen_lite/Multiplication-v0": "ragen_lite.envs.answers.arithmetic:Multiplication",
    "ragen_lite/ReasoningGym-v0": "ragen_lite.envs.adapters.reasoning_gym:ReasoningGym",
    "ragen_lite/Rubik-v0": "ragen_lite.envs.games.rubik:Rubik",
    "ragen_lite/Sokoban-v0": "ragen_lite.envs.games.sokoban.task:Sokoban",
    "ragen_lite/Sudoku-v0": "ragen_lite.envs.games.sudoku:Sudoku",
    "ragen_lite/Taxi-v0": "ragen_lite.envs.games.taxi:Taxi",
    "ragen_lite/Textarena-v0": "ragen_lite.envs.adapters.textarena:TextArena",
    "ragen_lite/Wordle-v0": "ragen_lite.envs.games.wordle:Wordle",
    "ragen_lite/WordProblems-v0": "ragen_lite.envs.answers.word_problems:WordProblems",
}

for _id, _entry_point in TASKS.items():
    gymnasium.register(_id, entry_point=_entry_point)
