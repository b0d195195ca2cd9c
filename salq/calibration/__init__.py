"""Calibration: choosing the grids and adapters of a model on text, block by block, as a stream of events."""
