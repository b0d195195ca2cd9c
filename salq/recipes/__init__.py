"""Methods as declarations: one file each, with its citation and its deviations from the paper. See CONTRIBUTING.md to add one.

>>> from salq import recipes
>>> recipes.get("sapr", bits=2, overrides={"rank": 8}).spec.tag
'w2g64'
"""

from salq.recipes.method import PRESETS, Method, Paper
from salq.recipes.overrides import Field, fields
from salq.recipes.registry import describe, get, names

__all__ = ["PRESETS", "Field", "Method", "Paper", "describe", "fields", "get", "names"]
