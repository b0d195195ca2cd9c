"""Questions that teach: each asks for something that quantization harms early, and says what to look for in the answers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """`key` names its button, `look` says what to look for."""

    key: str
    name: str
    prompt: str
    look: str


PRESETS = (
    Preset(
        "counting", "Counting", "Count from one to twelve in words.",
        "Counting: look for a number that is left out or said twice. Every word hangs on the one before, so one slip carries on.",
    ),
    Preset(
        "rhyme", "A rhyme", "Write a short poem about a lighthouse.",
        "A rhyme: look for lines that no longer rhyme, or that repeat. Sound and plan of a poem go before its grammar does.",
    ),
    Preset(
        "fact", "A fact", "What is the capital of France, and what is it known for?",
        "A fact: look for names that sound right and are wrong. Facts live in few weights; fluent grammar in many.",
    ),
    Preset(
        "arithmetic", "Arithmetic", "What is 7 times 8?",
        "Arithmetic: look at the number. One wrong token is a wrong answer, however good the sentence around it.",
    ),
    Preset(
        "copying", "Copying", "Repeat exactly: red, green, blue, seven, salt",
        "Copying: look for the first word that differs from the question. The model only has to look back; an error is attention gone astray.",
    ),
)  # fmt: skip
