"""Weights into vLLM's workers, whole or as a LoRA adapter, and whether they arrived."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ragen_lite.agents.engines.protocol import Adapter, EngineUnavailable, StaleWeights

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM has room for
ADAPTER = 1  # vLLM's number of the one adapter there is
MERGED = "; engine.lora=merged hands over the sums instead"

Weights = dict[str, Tensor]


class WholeWeights:
    """All weights, each time.

    Args:
        dtype: vLLM's.
        cpu: whether there is no GPU.
        workers: processes among which the model is divided.
    """

    def __init__(self, dtype: torch.dtype, cpu: bool, workers: int) -> None:
        self.dtype = dtype
        self.cpu = cpu
        self.workers = workers
        self.vectors: Weights = {}
        self._names: set[str] | None = None

    def load(self, llm: Any, weights: Weights) -> None:
        """Hand them over. Raises StaleWeights where tensors are missing that came before, or where
        a vector that vLLM holds afterwards is not bit for bit the one it was sent."""
        self._names = all_again(self._names, weights)
        if self.cpu and HEAD not in weights and all(llm.collective_rpc(has_head)):
            weights[HEAD] = weights[EMBEDDING]
        if self.workers > 1:  # they are processes, so the tensors travel
            weights = {name: tensor.to(self.dtype).cpu() for name, tensor in weights.items()}
        llm.collective_rpc("reload_weights", kwargs={"weights_iterator": list(weights.items())})
        self.vectors = {name: tensor for name, tensor in weights.items() if tensor.dim() == 1}
        self.compare(llm)

    def compare(self, llm: Any) -> None:
        """Raise StaleWeights where a vector of vLLM's is not the one it was sent last."""
        for held in llm.collective_rpc(vectors_of):
            compare(held, self.vectors)


class AdapterWeights:
    """A LoRA adapter each time, after the frozen weights once.

    vLLM's loader reads adapters from disk, so each is a folder for as long as that takes.

    Args:
        adapter: whose matrices come.
        whole: hands the frozen weights over.
    """

    def __init__(self, adapter: Adapter, whole: WholeWeights) -> None:
        self.adapter = adapter
        self.whole = whole
        self._names: set[str] | None = None

    def load(self, llm: Any, weights: Weights) -> None:
        """Hand the matrices over. Raises StaleWeights where one that vLLM's layers hold afterwards
        is not bit for bit the one it was sent, and EngineUnavailable where vLLM refuses them."""
        from vllm.lora.request import LoRARequest

        if self._names is None:
            self.whole.load(llm, {n: tensor.detach() for n, tensor in self.adapter.frozen()})
        else:
            self.whole.compare(llm)  # they may have been asleep
        self._names = all_again(self._names, weights)
        held = {name: tensor.to(self.whole.dtype).cpu() for name, tensor in weights.items()}
        with tempfile.TemporaryDirectory() as folder:
            self.adapter.config.save_pretrained(folder)
            save_file(
                {name: tensor.contiguous() for name, tensor in held.items()},
                Path(folder) / "adapter_model.safetensors",
            )
            try:
                llm.add_lora(LoRARequest("learner", ADAPTER, folder, load_inplace=True))
            except Exception as error:  # whatever vLLM makes of a family's layers
                why = f"vLLM does not take this adapter: {error}{MERGED}"
                raise EngineUnavailable(why) from error
        sent = {}
        for name, tensor in held.items():
            layer, _, which = name.removeprefix("base_model.model.").partition(".lora_")
            # vLLM puts the scale into the second matrix.
            second = which.startswith(("B.", "embedding_B"))
            scaled = tensor * self.adapter.scales[layer] if second else tensor
            sent[digest(scaled)] = name
        for known in llm.collective_rpc(matrices_of):
            if missing := sent.keys() - known:
                name = min(sent[key] for key in missing)
                raise StaleWeights(f"vLLM holds other values of {name} than it was sent")


def adapter_arguments(adapter: Adapter, dtype: str, cpu: bool) -> dict[str, Any]:
    """The engine arguments for one adapter. Raises EngineUnavailable for what vLLM cannot do."""
    if dtype == "float32" and not cpu:
        raise EngineUnavailable(f"vLLM's LoRA on a GPU is of 16 bits: take dtype=bfloat16{MERGED}")
    if any(layer.endswith(".kv_b_proj") for layer in adapter.scales):
        raise EngineUnavailable(
            f"vLLM decodes without kv_b_proj, beside which this adapter has matrices{MERGED}"
        )
    rank = max(adapter.config.r, *adapter.config.rank_pattern.values(), 1)
    if rank > RANKS[-1]:
        raise EngineUnavailable(
            f"vLLM takes an adapter's rank of up to {RANKS[-1]}, not {rank}{MERGED}"
        )
    room = min(known for known in RANKS if known >= rank)
    return {"enable_lora": True, "max_loras": 1, "max_cpu_loras": 1, "max_lora_rank": room}


def adapter_of_requests() -> Any:
    """What a request names the adapter by; it is there already, so the path is never read."""
    from vllm.lora.request import LoRARequest

    return LoRARequest("learner", ADAPTER, "learner")


def all_again(before: set[str] | None, weights: Weights) -> set[str]:
    """The names of the weights. Raises StaleWeights where some are missing that came before."""
    if before is not None and (missing := before - weights.keys()):
        raise StaleWeights(
            f"{len(missing)} of {len(before)} tensors are missing, such as {min(missing)}"
        )
    return set(weights)


def compare(held: Weights, sent: Weights) -> None:
    """Raise StaleWeights where a worker's vector is not what was sent: exact, however small a step
    was."""
    for name, vector in held.items():
        # Not among them: biases that vLLM has put together.
        if name not in sent or sent[name].shape != vector.shape:
            continue
        if not torch.equal(sent[name].to(vector.dtype).cpu(), vector):
            raise StaleWeights(f"vLLM holds other values of {name} than it was sent")


def digest(tensor: Tensor) -> str:
    """Of a tensor's bytes."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()


def vectors_of(worker: Any) -> Weights:
    """Run by vLLM's workers: the vectors of their model. The norms among them are kept by vLLM just
    as they came."""
    return {
        name: p.detach().cpu() for name, p in worker.get_model().named_parameters() if p.dim() == 1
    }


def has_head(worker: Any) -> bool:
    """Run by vLLM's workers: whether their model has a head apart from its embedding."""
    return HEAD in dict(worker.get_model().named_parameters())


def matrices_of(worker: Any) -> set[str]:
    """Run by vLLM's workers: the digests of the matrices that their layers generate with."""
    manager = worker.model_runner.lora_manager._adapter_manager
    known = manager.get_adapter(ADAPTER)
    found: set[str] = set()
    for name, layer in known.loras.items() if known else ():
        # One that vLLM could not put beside its layer is known, and takes no part.
        if name in manager.modules:
            slot = manager.lora_index_to_id.index(ADAPTER)
            found |= _within(manager.modules[name], slot, layer)
    return found


def _within(module: Any, slot: int, layer: Any) -> set[str]:
    """The digests of a layer's matrices that stand in its slot, or the worker's part of them."""
    first, second = layer.lora_a, layer.lora_b
    parts = (first, second)
    if module.tp_size > 1:
        parts = (module.slice_lora_a(first), module.slice_lora_b(second))
    found = set()
    for whole, part, stacks in zip(
        (first, second), parts, (module.lora_a_stacked, module.lora_b_stacked), strict=True
    ):
        # Of layers that vLLM has put together, one each.
        for matrix, sent, stack in zip(_several(whole), _several(part), stacks, strict=False):
            if matrix is None:
                continue
            rows, columns = sent.shape
            held = stack[slot, 0, :rows, :columns]
            if held.shape == sent.shape and torch.equal(held.cpu(), sent.cpu()):
                found.add(digest(matrix))
    return found


def _several(matrices: Any) -> list[Any]:
    return matrices if isinstance(matrices, list) else [matrices]
