"""From trajectories to weights, and from the weights to the engine."""
