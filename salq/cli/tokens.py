"""`tokens`: one text scored token by token by the original and a quantized model, and which blocks a chosen token's KL comes from."""

import argparse
from typing import TYPE_CHECKING, Any

from salq.cli import options
from salq.cli.display import Display
from salq.cli.follow import open_store
from salq.cli.report import emit, number, percent, say, table
from salq.core.errors import ConfigError
from salq.models.catalogue import DEFAULT_MODEL
from salq.runs.limits import Limits

if TYPE_CHECKING:
    from salq.chat.participants import Participant
    from salq.chat.scoring import Pair
    from salq.evaluation.restore import Breakdown

SHOWN = 24
"""Longest token printed in a table, in characters."""


def add(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.command(
        commands, "tokens", run, "Score a text token by token with the original and a quantized model.",
        "Both predict every token from the text before it. Without --text, the original answers --prompt and its answer is scored.",
    )  # fmt: skip
    parser.add_argument(
        "--model", default=None, help=f"the original: catalogue name, hub id or folder (default: that of the run, else {DEFAULT_MODEL})"
    )
    parser.add_argument("--run", dest="run_id", metavar="ID", help="the quantized side: what this run has calibrated")
    parser.add_argument("--recipe", choices=["rtn"], help="the quantized side: the model rounded to nearest (the default)")
    options.add_grid(parser)
    parser.add_argument("--text", default=None, metavar="TEXT", help="the text to score; with --prompt, as the answer to it")
    parser.add_argument("--prompt", default=None, help="a question that the scored text answers")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="longest answer of the original in tokens (default 64)")
    parser.add_argument("--where", type=int, default=None, metavar="N", help="put blocks and matrices back one at a time for token N of the table")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (default auto)")


def run(args: argparse.Namespace) -> int:
    """Do it."""
    original, quantized = _participants(args)
    subject = _subject(args)
    from salq.chat.scoring import load_pair, text_of, view
    from salq.evaluation.restore import break_down
    from salq.evaluation.tokens import score_tokens

    pair = load_pair(original, quantized, args.device)
    if "messages" in subject and args.text is None:
        subject["ids"] = _answer(pair, subject)
    text = text_of(pair.original, subject)
    count = len(text.ids) - text.first
    if args.where is not None and not (1 <= args.where <= count and pair.related):
        why = f"there are tokens 1 to {count}" if pair.related else "the run is made from another model, so no block of it can be put back"
        raise ConfigError(f"--where {args.where} is not possible: {why}.")
    values = view(pair, text, score_tokens(pair.original, pair.quantized, text.ids, text.first))
    found = None
    if args.where is not None:
        found = Display().watch(break_down(pair.original, pair.quantized, text.ids, text.first + args.where - 1))
    if args.json:
        emit({"quantized": quantized.title, **values, "where": None if found is None else found.to_json() | {"token": args.where}})
        return 0
    _show(quantized.title, values)
    if found is not None:
        _show_where(found, args.where, values["tokens"][args.where - 1]["text"])
    return 0


def _participants(args: argparse.Namespace) -> "tuple[Participant, Participant]":
    if args.run_id is not None and args.recipe is not None:
        raise ConfigError("--run names the quantized side already; leave --recipe out.")
    from salq.chat.participants import Participant
    from salq.runs.sides import run_participant

    store = open_store()
    run = None if args.run_id is None else run_participant(store, store.resolve(args.run_id))
    model = args.model or (run.model if run is not None else DEFAULT_MODEL)
    Limits.here().check_model(model)
    model = options.placed_model(model)
    rounded = Participant.rtn(model, options.check_spec(args.bits, args.group_size, symmetric=args.symmetric))
    return Participant.original(model), run or rounded


def _subject(args: argparse.Namespace) -> dict[str, Any]:
    """What is scored, as `scoring.text_of` takes it. Raises TextError, ConfigError."""
    from salq.chat.sampling import Sampling
    from salq.chat.text import clean_prompt, printable

    if args.prompt is None:
        if args.text is None:
            raise ConfigError("There is nothing to score; give --text, or --prompt for the original's answer to it.")
        return {"text": printable(args.text)}
    sampling = Sampling(args.max_new_tokens)
    messages = [{"role": "user", "content": clean_prompt(args.prompt).text}]
    answer = {} if args.text is None else {"answer": printable(args.text)}
    return {"messages": messages, "max_new_tokens": sampling.max_new_tokens, **answer}


def _answer(pair: "Pair", subject: dict[str, Any]) -> list[int]:
    """The original's own greedy answer, with the token that ended it."""
    from salq.chat.generate import stream
    from salq.chat.prompt import encode_prompt
    from salq.chat.sampling import Sampling

    prompt = encode_prompt(pair.original, subject["messages"], subject["max_new_tokens"])
    found = stream(pair.original, prompt, Sampling(subject["max_new_tokens"]))
    return [token.token_id for token in found if token.token_id is not None]


def _show(title: str, values: dict[str, Any]) -> None:
    say(f"{values['original']}  against  {title}\n")
    rows = [
        [
            str(index), _shown(one["text"]), f"{one['kl']:.4f}", f"{one['log_probability_original']:.3f}", f"{one['change']:+.3f}",
            str(one["rank_original"]), str(one["rank"]), _likeliest(one["top_original"]), _likeliest(one["top"]), "differs" if one["flipped"] else "",
        ]
        for index, one in enumerate(values["tokens"], 1)
    ]  # fmt: skip
    say(table(["#", "token", "KL", "log p", "change", "rank", "rank q", "original's first", "quantized's first", ""], rows))
    say()
    say(values["reading"])
    for note in values["notes"]:
        say(note)
    say(f"KL and log p in nats; {values['context_tokens']} tokens of context; {values['execution']}.")


def _show_where(found: "Breakdown", token: int, text: str) -> None:
    say(f"\nWhere token {token}, “{text}”, breaks: KL {number(found.kl)} nats\n")
    say(table(["block", "KL left", "removed"], _rows({str(i): left for i, left in enumerate(found.blocks)}, found)))
    say()
    say(table(["matrix, all blocks", "KL left", "removed"], _rows(found.matrices, found)))
    say()
    say(found.reading)


def _rows(left: dict[str, float], found: "Breakdown") -> list[list[str]]:
    return [[name, f"{value:.4f}", percent(found.removed(value))] for name, value in left.items()]


def _likeliest(candidates: list[dict[str, Any]]) -> str:
    return f"{_shown(candidates[0]['text'])} {100 * candidates[0]['probability']:.0f} %"


def _shown(text: str) -> str:
    """A token in quotes, so that its spaces are seen."""
    return f"“{text if len(text) <= SHOWN else text[:SHOWN] + '…'}”"
