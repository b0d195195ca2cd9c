"""How the next token is chosen, as a checked value. Light: the page and the command line build one without torch."""

from dataclasses import dataclass

from salq.core.errors import ConfigError

MAX_NEW_TOKENS = 1024
MAX_TEMPERATURE = 2.0
MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class Sampling:
    """`temperature` 0 takes the most likely token; `seed` matters only above 0; at most `max_new_tokens` tokens."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError outside the bounds."""
        _whole("max_new_tokens", self.max_new_tokens, 1, MAX_NEW_TOKENS)
        _whole("seed", self.seed, 0, MAX_SEED)
        value = self.temperature
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TEMPERATURE:
            raise ConfigError(f"temperature is {value!r}; it must be between 0 (greedy) and {MAX_TEMPERATURE}.")


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number between {low} and {high}.")
