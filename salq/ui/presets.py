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
        "Counting: look for a number that is left out or said twice. Every word hangs on the one before; a small original may slip too.",
    ),
    Preset(
        "rhyme", "A rhyme", "Write a short poem about a lighthouse.",
        "A rhyme: look for lines that repeat themselves or no longer rhyme. The plan of a poem goes before its grammar does.",
    ),
    Preset(
        "fact", "A fact", "What is the capital of France, and what is it known for?",
        "A fact: look for names that are gone or wrong, and for an answer that goes in circles: grammar outlives knowledge.",
    ),
    Preset(
        "arithmetic", "Arithmetic", "What is 7 times 8?",
        "Arithmetic: look at the number, if there is one: one wrong token is a wrong answer. Small originals calculate badly themselves.",
    ),
    Preset(
        "copying", "Copying", "Repeat exactly: red, green, blue, seven, salt",
        "Copying: look for the first word that is dropped or changed. The model only has to look back at the question, and this is what breaks.",
    ),
)  # fmt: skip
