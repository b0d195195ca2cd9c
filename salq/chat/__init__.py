"""Talking to a model: prompts, the decode loop, one process per model, and several of them side by side.

For the Compare tab and `python -m salq chat`. Nothing here knows of runs or of the page: a run is named by its model and the
folder of its frozen blocks.
"""
