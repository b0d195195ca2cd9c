"""`python -m salq chat`: one prompt, or a conversation, with the original and its quantized forms side by side."""

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from salq.chat.lockstep import Side, lockstep
from salq.chat.participants import Participant
from salq.chat.pool import ChatPool
from salq.chat.sampling import Sampling
from salq.chat.text import clean_prompt
from salq.cli import options
from salq.core import settings
from salq.core.errors import ConfigError
from salq.core.files import path_of
from salq.models.catalogue import CATALOGUE, DEFAULT_MODEL
from salq.models.shapes import linear_shapes
from salq.quant.spec import QuantSpec, check_group_size
from salq.runs.limits import Limits
from salq.runs.requests import sentence
from salq.runs.sides import run_participant
from salq.runs.store import RunStore

MAX_SIDES = 3

Messages = list[dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command, besides those that every command has (`--json`)."""
    parser.add_argument("--model", default=None, help=f"catalogue name, hub id or folder (default: that of the first run, else {DEFAULT_MODEL})")
    parser.add_argument("--run", dest="runs", action="append", default=[], metavar="ID", help="a calibrated run to talk to; up to two")
    parser.add_argument(
        "--packed", action="append", default=[], type=Path, metavar="FOLDER", help="an exported folder to talk to; beside the original with --model"
    )
    parser.add_argument(
        "--recipe", choices=["rtn"], default=None, help="a quantized side without a run: rounding to nearest (default when no other is named)"
    )
    parser.add_argument("--bits", type=int, choices=[2, 3, 4, 8], default=3, help="bits of the rtn side (default: 3)")
    parser.add_argument("--group-size", default="64", metavar="N", help="group size of the rtn side, or `row` (default: 64)")
    parser.add_argument("--symmetric", action="store_true", help="symmetric grid for the rtn side")
    parser.add_argument("--prompt", default=None, help="one prompt; without it, a conversation on the terminal")
    parser.add_argument("--system", default="", help="system prompt, for models with a chat template")
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="longest answer in tokens (default: 128)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default), larger is more random, at most 2")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choices above temperature 0 (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (default: auto)")
    options.add_executor(parser, "auto")
    options.add_head(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Answer, print the answers (unless `--json`), and return them as JSON values. Raises SalqError."""
    sampling = Sampling(args.max_new_tokens, args.temperature, args.seed)
    participants = participants_of(args, RunStore(settings.runs_dir()))
    quiet = bool(args.json)
    turns: list[dict[str, Any]] = []
    pool = ChatPool(limit=len(participants))
    histories: list[Messages] = [[{"role": "system", "content": args.system}] if args.system.strip() else [] for _ in participants]
    try:
        for prompt in [args.prompt] if args.prompt is not None else _typed():
            sides, note, seconds = _answer(pool, participants, histories, prompt, sampling, args.device)
            turns.append({"prompt": prompt, "note": note, "seconds": seconds, "sides": [side.to_json() for side in sides]})
            if not quiet and any(side.state != "failed" for side in sides):
                _show(sides, note)
    finally:
        pool.close()
    if args.prompt is not None and (failed := [side for side in turns[0]["sides"] if side["state"] == "failed"]):
        raise ConfigError(failed[0]["message"])
    return turns[0] if args.prompt is not None else {"turns": turns}


def participants_of(args: argparse.Namespace, store: RunStore) -> list[Participant]:
    """The original, the runs and exported folders that were named, and RTN when none was (or when it was asked for).

    An exported folder stands alone: the original is beside it only when something else names it. Raises ConfigError, ShapeError, ModelError,
    UnknownNameError.
    """
    runs = [run_participant(store, store.resolve(name)) for name in args.runs]
    quantized, originals = [*runs, *(Participant.packed(folder) for folder in args.packed)], []
    if args.model or runs or args.recipe or not quantized:
        model = args.model or (runs[0].model if runs else DEFAULT_MODEL)
        Limits.here().check_model(model)
        originals = [Participant.original(model)]
        if args.recipe == "rtn" or not quantized:
            quantized.append(Participant.rtn(model, _fitting(_spec(args), model)))
    found = [*originals, *(replace(side, executor=args.executor, head=args.head) for side in quantized)]
    if len(found) > MAX_SIDES:
        raise ConfigError(f"{len(found)} sides were asked for; at most {MAX_SIDES} can answer at once.")
    return found


def _answer(
    pool: ChatPool, participants: list[Participant], histories: list[Messages], prompt: str, sampling: Sampling, device: str
) -> tuple[tuple[Side, ...], str, float]:
    cleaned = clean_prompt(prompt)
    conversations = [[*history, {"role": "user", "content": cleaned.text}] for history in histories]
    stop, started = threading.Event(), time.perf_counter()
    sides: tuple[Side, ...] = ()
    answers = lockstep(pool, participants, conversations, sampling, stop, device)
    while True:
        try:
            for sides in answers:
                _progress(sides)
            break
        except KeyboardInterrupt:
            break  # Ctrl-C stops the answer, not the conversation
    answers.close()
    _progress(())
    for history, conversation, side in zip(histories, conversations, sides, strict=True):
        if side.text:
            history[:] = [*conversation, {"role": "assistant", "content": side.text}]
    return sides, cleaned.note, time.perf_counter() - started


def _typed() -> Iterator[str]:
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
            return
        if text.strip() in {"/exit", "/quit"}:
            return
        if text.strip():
            yield text


def _progress(sides: tuple[Side, ...]) -> None:
    """One line that is overwritten while the sides work; nothing when nobody watches."""
    if sys.stderr.isatty():
        words = "   ".join(side.message or f"{side.participant.title}: {side.count} tokens" for side in sides)
        print(f"\r\x1b[2K{words[:150]}", end="", file=sys.stderr, flush=True)


def _show(sides: tuple[Side, ...], note: str) -> None:
    if note:
        print(note)
    for side in sides:
        print(f"\n--- {side.participant.title}{f' ({side.reference})' if side.reference else ''}")
        print(side.text or side.message)
        print(f"    {facts(side)}")
        if side.execution:
            print(f"    {side.execution}")
        for remark in side.notes:
            print(f"    {remark}")
    print()


def facts(side: Side) -> str:
    """Speed and memory of one side in words."""
    parts = [f"{side.count} tokens"]
    if side.tokens_per_second is not None:
        parts.append(f"{side.tokens_per_second:.1f} tokens/s")
    if side.first_token_seconds is not None:
        parts.append(f"first token after {side.first_token_seconds:.2f} s")
    if side.memory_gb is not None:
        parts.append(f"{side.memory_gb:.2f} GB")
    return ", ".join([*parts, *([side.message] if side.message and side.text else [])])


def _fitting(spec: QuantSpec, model: str) -> QuantSpec:
    """`spec`, when its group size divides the model's matrices: told before a process is started, wherever the shapes are at hand."""
    from salq.models.folder import read_folder_config

    folder = path_of(model)
    config = CATALOGUE[model].config if model in CATALOGUE else read_folder_config(folder) if folder.is_dir() else {}
    if {"hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers"} <= set(config):
        check_group_size(spec, linear_shapes(config))
    return spec


def _spec(args: argparse.Namespace) -> QuantSpec:
    group = None if args.group_size in {"row", "-1", "none"} else args.group_size
    try:
        return QuantSpec(bits=args.bits, group_size=group, symmetric=args.symmetric)
    except ValidationError as error:
        raise ConfigError(f"The grid is not valid: {sentence(error)}; use for example --bits 3 --group-size 64, or --group-size row.") from error
