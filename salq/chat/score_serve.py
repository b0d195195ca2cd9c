"""`python -m salq.chat.score_serve`: an original and a quantized model in one process that scores texts, by the protocol of `serve`.

In:  {"op": "load", "original", "participant", "device"} first, then any number of {"op": "score", "id", "subject", "answers"?},
     {"op": "where", "id", "subject", "index"} and {"op": "stop", "id"}; `subject` as in `scoring.text_of`.
Out: "status", "ready"; of a request "progress" (done, of, text), then "done" with "view" (and "fork" when the two models' answers to one question
     were given, the original's first) or "breakdown", or "error".
"""

import json
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch

from salq.chat.participants import Participant
from salq.chat.scoring import Pair, Text, fork, load_pair, text_of, view
from salq.chat.serve import Link, memory_gb, work
from salq.core.device import keep_freed_memory, thread_count
from salq.core.errors import ConfigError, SalqError
from salq.core.events import PhaseStep
from salq.evaluation.restore import break_down
from salq.evaluation.tokens import score_tokens

REMEMBERED = 4
"""Scored texts kept, so that asking about one of them again costs nothing."""

Json = dict[str, Any]


def main() -> None:
    """Load both models, then score until the end."""
    work(_load)


def _load(link: Link) -> "Scorer":
    request = link.requests.get()
    keep_freed_memory()
    torch.set_num_threads(thread_count())
    original, quantized = (Participant.from_json(request[name]) for name in ("original", "participant"))
    link.send("status", text=f"Loading {original.title} and {quantized.title} to score texts")
    pair = load_pair(original, quantized, request.get("device", "auto"))
    link.send("ready", title=quantized.title, memory_gb=memory_gb(pair.original))
    return Scorer(pair)


class Scorer:
    """Answers requests about one pair of models."""

    def __init__(self, pair: Pair) -> None:
        """Nothing scored yet."""
        self._pair = pair
        self._views: OrderedDict[str, tuple[Text, Json]] = OrderedDict()

    def __call__(self, request: Json, link: Link) -> Iterator[Json]:
        """The events of one request; a SalqError becomes its last event."""
        about = {"id": str(request.get("id", ""))}
        started = time.perf_counter()
        try:
            for event in self._carry_out(request, link):
                timed = {"seconds": time.perf_counter() - started} if event["event"] == "done" else {}
                yield {**event, **timed, **about}
        except SalqError as error:
            yield {"event": "error", "message": str(error), **about}
        except (LookupError, TypeError, ValueError) as error:
            yield {"event": "error", "message": str(ConfigError(f"The request is not one that this process knows: {error!r}.")), **about}

    def _carry_out(self, request: Json, link: Link) -> Iterator[Json]:
        if request["op"] == "where":
            yield from self._where(request, link)
            return
        subjects = [request["subject"], *(request.get("answers") or [])]
        found = []
        for number, subject in enumerate(subjects):
            yield {"event": "progress", "done": number, "of": len(subjects), "text": "Scoring with both models"}
            found.append(self._view(subject))
            if link.stopped(request["id"]):
                yield {"event": "done", "end": "stopped"}
                return
        (_, scored), *answers = found
        parted = fork((answers[0][0], answers[1][0]), (answers[0][1], answers[1][1])) if answers else None
        yield {"event": "done", "end": "end", "view": scored, "fork": parted}

    def _view(self, subject: Json) -> tuple[Text, Json]:
        key = json.dumps(subject, sort_keys=True)
        if key not in self._views:
            text = text_of(self._pair.original, subject)
            scored = score_tokens(self._pair.original, self._pair.quantized, text.ids, text.first)
            self._views[key] = text, view(self._pair, text, scored)
        self._views.move_to_end(key)
        while len(self._views) > REMEMBERED:
            self._views.popitem(last=False)
        return self._views[key]

    def _where(self, request: Json, link: Link) -> Iterator[Json]:
        if not self._pair.related:
            raise ConfigError("The quantized side is made from another model, so no block of it can be put back; choose a run of this model.")
        text = text_of(self._pair.original, request["subject"])
        steps = break_down(self._pair.original, self._pair.quantized, text.ids, text.first + int(request["index"]))
        while True:
            try:
                event = next(steps)
            except StopIteration as finished:
                yield {"event": "done", "end": "end", "breakdown": finished.value.to_json() | {"index": int(request["index"])}}
                return
            if isinstance(event, PhaseStep):
                yield {"event": "progress", "done": event.done, "of": self._pair.original.n_blocks, "text": "Putting blocks back, one at a time"}
                if link.stopped(request["id"]):
                    yield {"event": "done", "end": "stopped"}
                    return


if __name__ == "__main__":
    main()
