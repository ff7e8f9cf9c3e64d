"""The pages of the recipes, made from docs/recipes/facts: what was published, and what is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

RECIPES = Path(__file__).resolve().parent / "recipes"
FACTS = RECIPES / "facts"
INDEX = "docs/recipes/README.md"
CONFIGS = RECIPES.parents[1] / "configs" / "recipe"
INTRODUCTION = [
    "# Recipes",
    "",
    "Every system of the early R1 wave by its name: model, data, template, rewards and",
    "hyper-parameters of the published script. What the user names besides takes the place of what",
    "the recipe says of it: `recipe=tinyzero model=PATH data=FILE credit=grpo critic=off",
    "train.group_size=8`. A published data set is read from a file of its rows, a folder of such",
    "files, or the hub. `scale=smoke` cuts any of them to three short steps, on made up rows of",
    "the same form, and says what it cut.",
]


def names() -> list[str]:
    """The recipes of published systems."""
    return sorted(path.stem for path in FACTS.glob("*.yaml"))


def facts(name: str) -> dict[str, Any]:
    """What is known of a published system, and what is made of it here."""
    found: dict[str, Any] = yaml.safe_load((FACTS / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def cell(value: Any) -> str:
    """A value in a table."""
    text = (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
    return text.replace("|", "\\|")


def parameter(name: str, entry: dict[str, Any]) -> str:
    """A row of the table of hyper-parameters."""
    if "key" not in entry:
        here = cell(entry["word"])
    else:
        value = entry.get("here", entry["published"])
        here = f"`{entry['key']}={cell(value)}`"
        if "as" in entry:
            here += f", {entry['as']}"
    origin = f" (default of {cell(entry['from'])})" if "from" in entry else ""
    return f"| `{name}` | {cell(entry['published'])}{origin} | {here} |"


def page(name: str) -> str:
    """The page of a recipe, in Markdown."""
    told = facts(name)
    command = "sft" if name == "open_thoughts" else "train"
    lines = [
        f"# recipe={name}: {told['title']}",
        "",
        "```",
        f"python -m ragen_lite.{command} recipe={name}",
        f"python -m ragen_lite.{command} recipe={name} model=tiny scale=smoke    # three steps",
        "```",
        "",
    ]
    for head in ("source", "data", "template", "rewards", "published"):
        lines += [f"**{head.capitalize()}.** {told[head]}", ""]
    parts = {"The same here": "same", "Different here": "different", "Run here": "run"}
    for head, key in parts.items():
        lines += [f"**{head}.**", "", *(f"- {item}" for item in told[key]), ""]
    lines += ["## Hyper-parameters", "", "| published name | published | here |", "|---|---|---|"]
    lines += [parameter(key, entry) for key, entry in told["parameters"].items()]
    return "\n".join(lines) + "\n"


def index() -> str:
    """The list of the recipes, in Markdown."""
    lines = [*INTRODUCTION, "", "| recipe | system | model | data |", "|---|---|---|---|"]
    for name in names():
        told = facts(name)
        recipe = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
        data = recipe["env"]["kwargs"].get("data", recipe.get("demos", "made up rooms"))
        lines.append(
            f"| [`{name}`]({name}.md) | {told['title']} | {recipe['model']['path']} | {data} |"
        )
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """All pages by their paths from the repository's root."""
    return {INDEX: index()} | {f"docs/recipes/{name}.md": page(name) for name in names()}
