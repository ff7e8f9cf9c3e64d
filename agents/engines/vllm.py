"""vLLM as an engine, in this process: token ids in and out, weights handed over in memory.

This file, vllm_setup.py and vllm_weights.py are the only ones that import vllm. Nothing is ever
read from a checkpoint: the engine starts with weights that mean nothing, and a reload without
tensors, which would bring old ones back from disk, has no disk to read from.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ragen_lite.agents.engines.protocol import (
    EngineFailure,
    EngineSetup,
    EngineUnavailable,
    Request,
    StaleWeights,
    check_request,
)
from ragen_lite.agents.engines.vllm_setup import (
    engine_arguments,
    import_vllm,
)
from ragen_lite.agents.engines.vllm_weights import (
    MERGED,
    AdapterWeights,
    WholeWeights,
    adapter_of_requests,
)
from ragen_lite.agents.errors import UserError
from ragen_lite.agents.trajectory import Completion, Stop


@contextlib.contextmanager
def _failing(doing: str) -> Iterator[None]:
    """Make whatever goes wrong within vLLM an EngineFailure."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise EngineFailure(f"vLLM, {doing}: {type(error).__name__}: {error}") from error


class VLLMEngine:
    """Generates with vLLM. Its weights mean nothing until ``load_weights`` was called.

    Args:
        setup: see EngineSetup. vLLM builds its own model from the configuration of ``model``, in
            float32 or bfloat16; the options are any of vLLM's engine arguments, such as
            gpu_memory_utilization and tensor_parallel_size.

    On a GPU a reply's draws belong to its key. vLLM's CPU sampler knows no seed of a request, so
    there a rollout's draws follow from the key of its first request. Raises EngineUnavailable where
    vLLM cannot be had as asked.
    """

    takes_options = True
    same_arithmetic = False
    _open = False  # vLLM's process groups belong to the process: a second engine would lose them

    def __init__(self, setup: EngineSetup) -> None:
        self.max_model_len = setup.max_model_len
        self.version = -1
        self.note = setup.note
        self._cpu = not torch.cuda.is_available()
        self._sleeping = setup.sleeping
        self._asleep = False
        self._warned = False
        self._stop_ids = setup.stop_ids
        self._under_way: set[int] = set()
        self._known: dict[int, tuple[int, ...]] = {}  # what each trajectory was fed and sampled
        self.reset_metrics()
        self._random = torch.get_rng_state()
        self.llm: Any = None
        vllm = import_vllm()
        known = [field.name for field in fields(vllm.EngineArgs)]
        arguments = engine_arguments(known, setup, self._cpu)
        if VLLMEngine._open:
            raise EngineUnavailable(
                "there is a vLLM engine in this process already, and it takes one: close it first"
            )
        workers = int(arguments.get("tensor_parallel_size", 1))
        whole = WholeWeights(getattr(torch, setup.dtype), self._cpu, workers)
        adapter = setup.adapter
        self._weights = whole if adapter is None else AdapterWeights(adapter, whole)
        self._adapter = None if adapter is None else adapter_of_requests()
        self._start(vllm, setup.model, arguments)
        VLLMEngine._open = True
        self._prepare_requests()

    def _start(self, vllm: Any, model: Any, arguments: dict[str, Any]) -> None:
        """Build vLLM's engine from the model's configuration; torch's state stays as it was."""
        set_num_threads = torch.set_num_threads
        threads = torch.get_num_threads()
        _free_cached()
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[]),  # vLLM seeds the generator anew
        ):
            warnings.simplefilter("ignore")
            # vLLM takes what names no architecture for a model of embeddings.
            model.config.architectures = [type(model).__name__]
            model.config.save_pretrained(folder)
            try:
                engine_args = vllm.EngineArgs(model=folder, **arguments)
                llm = vllm.LLMEngine.from_engine_args(engine_args)
            except Exception as error:  # its workers' failures arrive as bare ones
                said = str(error) or type(error).__name__
                more = "" if self._adapter is None else MERGED
                why = f"vLLM refuses this model or these options: {said}{more}"
                raise EngineUnavailable(why) from error
            finally:  # vLLM's CPU worker takes the function away
                torch.set_num_threads = set_num_threads
                torch.set_num_threads(threads)
        self.llm = llm
        self._block = int(llm.vllm_config.cache_config.block_size)

    def _prepare_requests(self) -> None:
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        self._tokens = tokens_input
        self._sampling = partial(
            SamplingParams,
            stop_token_ids=sorted(self._stop_ids),
            logprobs=0,  # the sampled token's, and no other
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    # ---- the Engine protocol ----

    def submit(self, request: Request) -> None:
        """See Engine. Raises ValueError where the request is empty, does not continue its
        trajectory or cannot fit."""
        check_request(request, self.max_model_len)
        known = self._known.get(request.id, ())
        if request.id in self._under_way or request.token_ids[: len(known)] != known:
            raise ValueError(
                f"request {request.id} does not continue what its trajectory was fed and sampled"
            )
        if self._cpu and not self._under_way:
            self._random = torch.Generator().manual_seed(request.key).get_state()
        sampling = self._sampling(
            temperature=request.sampling.temperature,
            max_tokens=request.sampling.max_tokens,
            seed=None if self._cpu else request.key >> 1,
        )
        self._under_way.add(request.id)
        tokens = self._tokens(list(request.token_ids))
        self.llm.add_request(str(request.id), tokens, sampling, lora_request=self._adapter)

    def step(self) -> list[tuple[int, Completion]]:
        """See Engine. Raises EngineFailure for whatever goes wrong within vLLM."""
        if not self._under_way:
            return []
        outside = torch.get_rng_state()
        torch.set_rng_state(self._random)
        try:
            with _failing("generating"):
                outputs = self.llm.step()
        finally:
            self._random = torch.get_rng_state()
            torch.set_rng_state(outside)
        finished = []
        for output in outputs:
            if output.finished:
                finished.append((int(output.request_id), self._completion(output)))
        return sorted(finished, key=lambda pair: pair[0])

    def _completion(self, output: Any) -> Completion:
        id = int(output.request_id)
        reply = output.outputs[0]
        prompt = tuple(output.prompt_token_ids)
        ids = tuple(reply.token_ids)
        if reply.finish_reason not in ("stop", "length"):
            raise EngineFailure(f"vLLM ended a reply with {reply.finish_reason!r}")
        # The last sampled token was never fed, and only whole blocks are cached.
        could = max(0, len(self._known.get(id, ())) - 1) // self._block * self._block
        self._hits[0] += min(could, output.num_cached_tokens or 0)
        self._hits[1] += could
        self._known[id] = prompt + ids
        self._under_way.discard(id)
        stop = Stop.EOS if ids[-1] in self._stop_ids else Stop.LENGTH
        return Completion(ids, tuple(reply.logprobs.logprobs), stop)

    def release(self, id: int) -> None:
        """See Engine."""
        self._known.pop(id, None)
        if id in self._under_way:
            self._under_way.discard(id)
            with _failing("aborting"):
                self.llm.abort_request([str(id)])

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """See Engine. Ends a sleep. Raises StaleWeights where tensors are missing that came before,
        where a vector that vLLM holds afterwards is not bit for bit the one it was sent, or where
        old keys and values remain."""
        if self._under_way:
            raise RuntimeError(
                f"new weights while {len(self._under_way)} trajectories are under way"
            )
        with _failing("taking weights"):
            self._weights.load(self.llm, {name: tensor.detach() for name, tensor in tensors})
            if self._asleep:
                self._asleep = not self.llm.wake_up(tags=["kv_cache"])
            clean = not self._asleep and self.llm.reset_prefix_cache()
        if not clean:
            raise StaleWeights(
                "vLLM did not wake up" if self._asleep else "vLLM did not reset its prefix cache"
            )
        self._known.clear()
        self.version = version

    def sleep(self) -> None:
        """See Engine: weights and cache are dropped (vLLM's level 2); weights that come only once
        go to the CPU's memory (level 1). On a CPU nothing happens."""
        if self._cpu and self._sleeping and not self._warned:
            self._warned = True
            self.note(
                "vLLM's sleep mode does nothing on a CPU: its memory stays allocated during updates"
            )
        if self._sleeping and not self._cpu and not self._under_way:
            with _failing("falling asleep"):
                self.llm.sleep(level=2 if self._adapter is None else 1)
            self._asleep = True

    def wake(self) -> None:
        """See Engine: memory for the weights; the cache's follows when ``load_weights`` has filled
        it."""
        if self._asleep:
            _free_cached()
            with _failing("waking up"):
                self.llm.wake_up(tags=["weights"])

    def metrics(self) -> dict[str, float]:
        """See Engine: the share of the tokens known from earlier turns, in whole blocks, that the
        cache still held."""
        hits, could = self._hits
        return {"rollout/prefix_hits": hits / could} if could else {}

    def reset_metrics(self) -> None:
        """See Engine."""
        self._hits = [0, 0]  # prompt tokens of later turns: read from the cache, could have been

    def close(self) -> None:
        """See Engine; a second time it does nothing."""
        if self.llm is None:
            return
        llm = self.llm
        self.llm = None
        self._under_way.clear()
        self._known.clear()
        from vllm.distributed import cleanup_dist_env_and_memory

        try:
            llm.engine_core.shutdown()
        finally:
            del llm
            gc.collect()
            cleanup_dist_env_and_memory()
            VLLMEngine._open = False


def _free_cached() -> None:
    """Give back what the learner's allocator keeps for itself: vLLM's worker may be another
    process, which cannot."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
