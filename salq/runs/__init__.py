"""Runs: what was asked for (`requests`), what happened (`store`), who works on it (`execute`, `worker`), and whose turn it is (`queue`)."""
