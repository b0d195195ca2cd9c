"""`models` and `recipes`: what there is to choose from."""

import argparse
from typing import Any

from salq.cli import options
from salq.cli.report import emit, facts, number, say, table
from salq.models.catalogue import CATALOGUE, DEFAULT_MODEL
from salq.quant.spec import BITS, SIGN_BITS, QuantSpec


def add(commands: options.Commands) -> None:
    """Add the commands."""
    options.command(commands, "models", models, "List the models that salq knows by name.")
    parser = options.command(commands, "recipes", recipes, "List the calibration recipes, or show one with all its settings.")
    parser.add_argument("name", nargs="?", metavar="RECIPE", help="show this recipe")
    parser.add_argument("--preset", default="quick", help="quick, base or published (default quick)")
    options.add_grid(parser, bits=None, widths=(SIGN_BITS, *BITS))


def models(args: argparse.Namespace) -> int:
    """Print the catalogue."""
    entries = list(CATALOGUE.values())
    if args.json:
        emit({"models": [{**vars(entry), "memory_gb": entry.memory_gb()} for entry in entries], "default": DEFAULT_MODEL})
        return 0
    rows = [
        [
            entry.key,
            f"{entry.parameters / 1e6:,.0f} M",
            f"{entry.memory_gb():.1f} GB",
            f"{entry.memory_gb(2):.1f} GB",
            "gated" if entry.gated else "open",
            entry.licence,
            entry.hub_id,
        ]
        for entry in entries
    ]
    say(table(["model", "parameters", "CPU memory", "GPU memory", "access", "licence", "hub id"], rows))
    say(f"\nDefault: {DEFAULT_MODEL}. Any other hub id or local folder whose model_type is llama works too. Memory is that of the weights alone.")
    return 0


def recipes(args: argparse.Namespace) -> int:
    """Print all recipes, or one in full."""
    from salq import recipes as registry

    if args.name is not None:
        return _one_recipe(args)
    found = [(name, registry.describe(name)) for name in registry.names()]
    if args.json:
        emit({"recipes": [_about(name, method) for name, method in found], "presets": list(registry.PRESETS)})
        return 0
    for name, method in found:
        say(f"{name}: {method.title}\n  {method.summary}")
        for paper in method.cites:
            say(f"  {paper.authors}, {paper.title}, {paper.url}")
    say("\n`python -m salq recipes NAME` shows every setting; presets: " + ", ".join(registry.PRESETS) + ".")
    return 0


def _one_recipe(args: argparse.Namespace) -> int:
    from salq import recipes as registry

    options.check_spec(args.bits or QuantSpec().bits, args.group_size, symmetric=args.symmetric)
    recipe = registry.get(args.name, preset=args.preset, bits=args.bits, group_size=args.group_size, symmetric=args.symmetric)
    method, settings = registry.describe(args.name), registry.fields(recipe)
    if args.json:
        emit({**_about(args.name, method), "recipe": recipe.model_dump(mode="json"), "fields": [vars(field) for field in settings]})
        return 0
    say(f"{method.title} ({args.name}, {args.preset})\n{method.summary}\n")
    say(facts([(field.path, f"{_shown(field.value):<10} {field.help}") for field in settings]))
    if method.deviations:
        say("\nWhere salq differs from the papers:\n" + "\n".join(f"  - {line}" for line in method.deviations))
    return 0


def _about(name: str, method: Any) -> dict[str, Any]:
    cites = [{**vars(paper), "url": paper.url} for paper in method.cites]
    return {"name": name, "title": method.title, "summary": method.summary, "cites": cites, "deviations": list(method.deviations)}


def _shown(value: Any) -> str:
    return {None: "none", True: "on", False: "off"}.get(value, number(value)) if value is None or isinstance(value, bool) else str(value)
