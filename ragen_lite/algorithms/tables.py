"""The algorithms by name. A new one is a file beside this, or a class in one, and a line here.

Each entry names a frozen dataclass whose fields are its options. From these tables follow the
choices of the command line, their options, their checks and their help.
"""

from __future__ import annotations

ADVANTAGES = {
    "grpo": "ragen_lite.algorithms.advantages:GRPO",
    "rloo": "ragen_lite.algorithms.advantages:RLOO",
    "turn_return": "ragen_lite.algorithms.advantages:TurnReturn",
}

LOSSES = {
    "ppo": "ragen_lite.algorithms.losses:PPO",
    "reinforce": "ragen_lite.algorithms.losses:Reinforce",
}

FILTERS = {
    "outcome": "ragen_lite.algorithms.filters:MixedOutcomes",
    "spread": "ragen_lite.algorithms.filters:Spread",
    "none": "ragen_lite.algorithms.filters:KeepAll",
}

KL_PENALTIES = {
    "off": "ragen_lite.algorithms.kl:NoKL",
    "k1": "ragen_lite.algorithms.kl:K1",
    "k2": "ragen_lite.algorithms.kl:K2",
    "k3": "ragen_lite.algorithms.kl:K3",
}

CORRECTIONS = {
    "off": "ragen_lite.algorithms.corrections:NoCorrection",
    "token": "ragen_lite.algorithms.corrections:TokenWeights",
    "sequence": "ragen_lite.algorithms.corrections:SequenceWeights",
}
