"""The algorithms by name. A new one is a file beside this, or a class in one, and a line here.

Each entry names a frozen dataclass whose fields are its options. From these tables follow the
choices of the command line, their options, their checks and their help.
"""

from __future__ import annotations

ADVANTAGES = {
    "grpo": "ragen_lite.algorithms.advantages:GRPO",
    "dr_grpo": "ragen_lite.algorithms.advantages:DrGRPO",
    "rloo": "ragen_lite.algorithms.advantages:RLOO",
    "reinforce": "ragen_lite.algorithms.batch_credit:BatchMean",
    "reinforce_pp": "ragen_lite.algorithms.batch_credit:ReinforcePP",
    "maxrl": "ragen_lite.algorithms.batch_credit:MaxRL",
    "turn_return": "ragen_lite.algorithms.advantages:TurnReturn",
    "rebn": "ragen_lite.algorithms.batch_credit:ReBN",
    "gigpo": "ragen_lite.algorithms.turn_credit:GiGPO",
    "gae": "ragen_lite.algorithms.value_credit:GAE",
    "bi_level_gae": "ragen_lite.algorithms.value_credit:BiLevelGAE",
    "oracle": "ragen_lite.algorithms.turn_credit:Oracle",
}

LOSSES = {
    "ppo": "ragen_lite.algorithms.losses:PPO",
    "gspo": "ragen_lite.algorithms.ratio_losses:GSPO",
    "cispo": "ragen_lite.algorithms.ratio_losses:CISPO",
    "sapo": "ragen_lite.algorithms.ratio_losses:SAPO",
    "dppo": "ragen_lite.algorithms.ratio_losses:DPPO",
    "gmpo": "ragen_lite.algorithms.ratio_losses:GMPO",
    "reinforce": "ragen_lite.algorithms.losses:Reinforce",
}

CRITICS = {
    "off": "ragen_lite.algorithms.critics:NoCritic",
    "own": "ragen_lite.algorithms.critics:OwnCritic",
    "shared": "ragen_lite.algorithms.critics:SharedCritic",
}

FILTERS = {
    "outcome": "ragen_lite.algorithms.filters:MixedOutcomes",
    "spread": "ragen_lite.algorithms.filters:Spread",
    "top_k": "ragen_lite.algorithms.filters:TopK",
    "top_p": "ragen_lite.algorithms.filters:TopP",
    "min_p": "ragen_lite.algorithms.filters:MinP",
    "none": "ragen_lite.algorithms.filters:KeepAll",
}

INSTANCES = {
    "as_drawn": "ragen_lite.algorithms.curriculum:AsDrawn",
    "sec": "ragen_lite.algorithms.curriculum:SEC",
}

OVERLONG = {
    "keep": "ragen_lite.algorithms.overlong:KeepCut",
    "zero": "ragen_lite.algorithms.overlong:ZeroCut",
    "mask": "ragen_lite.algorithms.overlong:MaskCut",
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
    "token_mask": "ragen_lite.algorithms.corrections:TokenMask",
    "sequence_mask": "ragen_lite.algorithms.corrections:SequenceMask",
}
