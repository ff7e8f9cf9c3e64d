"""The configuration: its schema, its checks, and the command line over Hydra."""
