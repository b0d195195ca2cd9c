"""Zero-shot tasks by EleutherAI's lm-evaluation-harness, an optional extra, run on our own models: originals and quantized copies alike.

The harness (Gao et al., https://zenodo.org/records/12608602) makes the questions and counts the answers; what it needs of a model is the
log-likelihood of a continuation after a context, which is computed here with the same forward pass as perplexity.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from salq.core.device import out_of_memory_as_error
from salq.core.errors import ConfigError, SalqError, TextError

if TYPE_CHECKING:
    from salq.models.llama import Llama

HARNESS = "lm_eval"
INSTALL = "pip install 'salq[tasks]'"
NEW_TOKENS = 256
"""Longest answer of a task that lets the model write, when the task names no length."""


def check_harness(task_file: Path | None = None) -> None:
    """Raises ConfigError when the harness is not installed, TextError when the task file is not there."""
    try:
        found = importlib.util.find_spec(HARNESS) is not None
    except ValueError:  # it was marked as missing
        found = False
    if not found:
        raise ConfigError(f"Zero-shot tasks need lm-evaluation-harness, which is not installed; {INSTALL} installs it.")
    if task_file is not None and not task_file.is_file():
        raise TextError(f"The task file {task_file} does not exist; name a YAML file as lm-evaluation-harness reads it.")


def zero_shot(model: "Llama", tasks: Sequence[str], task_file: Path | None = None, *, limit: int | None = None) -> dict[str, dict[str, Any]]:
    """Every task's {"questions": how many, "metrics": {name: {"value", "standard_error"}}}, without examples in the prompt.

    tasks: names of the harness; their data come from the hub. task_file: a task in YAML, its data where it says. limit: questions of each.
    Raises ConfigError for a task that does not exist or whose data cannot be had, and what `check_harness` raises.
    """
    check_harness(task_file)
    evaluator = importlib.import_module(f"{HARNESS}.evaluator")
    wanted: list[Any] = [*tasks, *([_own_task(task_file)] if task_file is not None else [])]
    try:
        found = evaluator.simple_evaluate(
            model=_adapter(model), tasks=wanted, num_fewshot=0, limit=limit, bootstrap_iters=100, log_samples=False, verbosity="ERROR"
        )
    except SalqError:
        raise
    except Exception as error:
        names = ", ".join([*tasks, *([task_file.name] if task_file is not None else [])])
        raise ConfigError(
            f"The tasks {names} cannot be run ({_first_line(error)}); check the names, the task file, and that the hub answers."
        ) from error
    counted = found["n-samples"]
    return {
        name: {"questions": counted[name]["effective"], "metrics": _metrics(result)} for name, result in found["results"].items() if name in counted
    }


def _metrics(result: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """From the harness's keys such as "acc,none" and "acc_stderr,none"."""
    found = {}
    for key, value in result.items():
        name, comma, choice = key.partition(",")
        if comma and isinstance(value, int | float) and not name.endswith("_stderr"):
            error = result.get(f"{name}_stderr,{choice}")
            found[name] = {"value": float(value), "standard_error": float(error) if isinstance(error, int | float) else None}
    return found


def _own_task(path: Path) -> dict[str, Any]:
    """The task of a YAML file, with relative data files looked for beside it."""
    import yaml

    try:
        task = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no task ({_first_line(error)}); write YAML as lm-evaluation-harness reads it.") from error
    if not isinstance(task, dict) or not isinstance(task.get("task"), str):
        raise ConfigError(f"{path} is no task: it has no `task: NAME`; write YAML as lm-evaluation-harness reads it.")
    files = (task.get("dataset_kwargs") or {}).get("data_files")
    if isinstance(files, dict):
        beside = {split: str(path.resolve().parent / name) if isinstance(name, str) and "://" not in name else name for split, name in files.items()}
        task["dataset_kwargs"] = {**task["dataset_kwargs"], "data_files": beside}
    return task


def _adapter(model: "Llama") -> Any:
    """Our model as the harness wants one: a subclass of its own, made here, because the harness may not be installed."""
    base = importlib.import_module(f"{HARNESS}.api.model").TemplateLM

    class Adapter(base):  # type: ignore[misc, valid-type]
        """One model, one request at a time: a quantized model on a CPU gains nothing from batches."""

        @property
        def eot_token_id(self) -> int:
            """What stands in front of a continuation without context."""
            tokenizer = model.tokenizer
            return int(next(one for one in (tokenizer.eos_token_id, tokenizer.bos_token_id, 0) if one is not None))

        @property
        def tokenizer_name(self) -> str:
            """For the harness's cache of requests."""
            return model.name.replace("/", "__")

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            """Token ids of a text; special tokens spelled out in it stay text."""
            return list(model.tokenizer(string, add_special_tokens=False, split_special_tokens=True).input_ids)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            return [continuation(model, context, following) for _, context, following in requests]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            """Log-likelihood of whole texts, each cut into windows that the model can take."""
            return [rolling(model, self.eot_token_id, self.tok_encode(request.args[0])) for request in requests]

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            """Greedy answers, cut before the first of the task's stop texts."""
            return [written(model, self.tok_encode(request.args[0]), request.args[1]) for request in requests]

    return Adapter()


@torch.no_grad()
def continuation(model: "Llama", context: Sequence[int], following: Sequence[int]) -> tuple[float, bool]:
    """Log-likelihood in nats of the tokens `following` after `context`, and whether greedy decoding would have written them.

    A context that is too long loses its beginning. Log-softmax in float32. Raises ResourceError when memory does not suffice.
    """
    longest = int(model.config.max_position_embeddings)
    tokens = [*context, *following][-(longest + 1) :]
    count = min(len(following), len(tokens) - 1)
    with out_of_memory_as_error(f"Scoring {len(tokens)} tokens"):
        hidden = model.model.model(input_ids=torch.tensor([tokens[:-1]], device=model.device), use_cache=False).last_hidden_state[0, -count:]
        scores: Tensor = model.model.lm_head(hidden).float().log_softmax(-1)
    targets = torch.tensor(tokens[-count:], device=scores.device)
    return float(scores.gather(-1, targets[:, None]).double().sum()), bool((scores.argmax(-1) == targets).all())


def rolling(model: "Llama", first: int, tokens: Sequence[int]) -> float:
    """Log-likelihood of all of `tokens` in windows without overlap, each after the token before it; the very first after `first`."""
    longest, total, before = int(model.config.max_position_embeddings), 0.0, first
    for start in range(0, len(tokens), longest):
        part = tokens[start : start + longest]
        total += continuation(model, [before], part)[0]
        before = part[-1]
    return total


@torch.no_grad()
def written(model: "Llama", prompt: Sequence[int], settings: dict[str, Any]) -> str:
    """The greedy answer to `prompt`, at most `max_gen_toks` tokens, cut before the first of `until`."""
    until = settings.get("until") or []
    stops = [until] if isinstance(until, str) else list(until)
    count = int(settings.get("max_gen_toks") or NEW_TOKENS)
    room = max(int(model.config.max_position_embeddings) - count, 1)
    ids = torch.tensor([list(prompt)[-room:]], device=model.device)
    generated = model.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0)
    text = str(model.tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True))
    for stop in stops:
        text = text.partition(stop)[0] if stop else text
    return text


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
