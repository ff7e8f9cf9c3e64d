"""Other people's dashboards: TensorBoard, and Weights & Biases where it is asked for."""

from __future__ import annotations

import importlib.util
import secrets
from pathlib import Path
from typing import Any, Protocol

from ragen_lite.config.schema import ConfigError


class Writer(Protocol):
    """What takes a step's metrics."""

    def write(self, row: dict[str, Any]) -> None:
        """The metrics of one step."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Scalars in the run's folder ``tensorboard``."""

    def __init__(self, folder: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def write(self, row: dict[str, Any]) -> None:
        """See Writer."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """See Writer."""
        self._writer.close()


class WandB:
    """A run of the project ragen-lite, the same one after a resume; its id is in ``wandb_id``.

    Raises ConfigError where wandb is not installed.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        # Not only whether it imports: the folder wandb/ that it leaves behind imports too, as an
        # empty namespace.
        found = importlib.util.find_spec("wandb")
        if found is None or found.origin is None:
            raise ConfigError("run.wandb=true needs: pip install wandb")
        import wandb

        self._wandb: Any = wandb
        # Made once, and not the folder's name: two folders of the same second may have the same.
        kept = folder / "wandb_id"
        run_id = (
            kept.read_text(encoding="utf-8").strip() if kept.is_file() else secrets.token_hex(8)
        )
        kept.write_text(run_id, encoding="utf-8")
        wandb.init(
            project="ragen-lite", id=run_id, resume="allow", name=folder.name, config=settings
        )

    def write(self, row: dict[str, Any]) -> None:
        """See Writer."""
        # Steps that it has already, of after the checkpoint, it leaves as they are; they are equal.
        self._wandb.log(row, step=row["step"])

    def close(self) -> None:
        """See Writer."""
        self._wandb.finish()


def open_writers(folder: Path, start: int, wandb: dict[str, Any] | None) -> list[Writer]:
    """The writers of a run.

    Args:
        folder: the run's.
        start: the step it goes on from; what TensorBoard has of later ones is dropped.
        wandb: the configuration to log to Weights & Biases, or None.
    """
    others: list[Writer] = [] if wandb is None else [WandB(folder, wandb)]
    # TensorBoard last, since it begins to write at once: nothing can fail behind it.
    return [*others, TensorBoard(folder, start)]
