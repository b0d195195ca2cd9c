"""Text sources and token windows. The only room, with models, that reaches for anything outside this machine."""
