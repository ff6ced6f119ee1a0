"""A recipe as text: find it, refuse what is dangerous in it, put variables in.

A recipe is somebody else's file that ends up in an evaluator and in a YAML constructor. So the
text is looked at first, as YAML events that construct nothing: only plain modifier tags, no
references, and `eval(...)` with arithmetic alone. SparseML's own restricted evaluator comes after
that. Nothing here imports SparseML.
"""

import ast
import difflib
import math
import re
import textwrap
from pathlib import Path

import yaml

from helpers.errors import UserError

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
SUFFIXES = (".md", ".yaml", ".yml")
Variable = float | int | str | bool

_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\n(.*?\n)---[ \t]*(?:\n|\Z)", re.S)
_DELIMITER = re.compile(r"^\s*(?:---|\+\+\+)", re.M)
_MODIFIER_TAG = re.compile(r"![A-Za-z_]\w*")
_FUNCTIONS = {"abs", "float", "int", "max", "min", "round"}
# No power: `eval(9**9**9)` is arithmetic too, and never comes back. No minus in front, on which
# SparseML's evaluator fails.
_ARITHMETIC = (
    ast.Expression | ast.BinOp | ast.Add | ast.Sub | ast.Mult | ast.Div | ast.FloorDiv | ast.Mod
    | ast.Name | ast.Load | ast.Constant | ast.Call
)  # fmt: skip


def find_recipe(name_or_path: str | Path) -> Path:
    """Return the file of a recipe given by name (with or without .md) or by path.

    Raises:
        UserError: a `zoo:` stub, another suffix, or no such file; names the nearest ones.
    """
    wanted = str(name_or_path)
    if wanted.startswith("zoo:"):
        raise UserError(
            f"{wanted}: the SparseZoo no longer answers. Use a recipe of this project, such as "
            "minilm-6layers_prune80 (all: recipes/README.md), or download recipe.md of the same "
            "model from https://huggingface.co/neuralmagic and give its path."
        )
    if "\n" in wanted:
        raise UserError("The recipe's text is given. Expected the name or the path of a recipe.")
    choices = [Path(wanted), RECIPES / wanted, RECIPES / f"{wanted}.md"]
    found = next((file for file in choices if file.is_file()), None)
    if found is None:
        near = difflib.get_close_matches(Path(wanted).stem, names(), n=3, cutoff=0.3)
        hint = f"Near: {', '.join(near)}." if near else "recipes/README.md lists them."
        raise UserError(f"No recipe {wanted}. Expected a name from recipes/ or a path. {hint}")
    if found.suffix.lower() not in SUFFIXES:
        raise UserError(f"{wanted} is no recipe. Expected a {', '.join(SUFFIXES)} file.")
    return found


def names() -> list[str]:
    """Return the names of the recipes that come with the project."""
    return sorted(file.stem for file in RECIPES.glob("*.md") if file.stem != "README")


def read_recipe(file: Path) -> str:
    """Return the YAML of a recipe: the front matter of Markdown, else the whole file.

    Raises:
        UserError: not text, no front matter, or YAML that is broken or dangerous.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{file.name} is not text. Expected YAML or Markdown in UTF-8.") from None
    if file.suffix.lower() == ".md":
        matter = _FRONT_MATTER.match(text)
        if matter is None:
            raise UserError(
                f"{file.name} has no YAML front matter. Expected it to start with a line '---', "
                "the modifiers, and another line '---'."
            )
        text = matter.group(1)
    # SparseML takes a text without a line break for a file name.
    text = text.lstrip().removeprefix("---\n").rstrip() + "\n"
    refuse_danger(text, file.name)
    return text


def refuse_danger(text: str, name: str) -> None:
    """Read YAML without constructing anything, and refuse all that a recipe has no need for.

    Raises:
        UserError: broken YAML, references, foreign tags, `eval` of more than arithmetic.
    """
    if _DELIMITER.search(text):
        # SparseML would run what stands between two of them, which is not what is checked here.
        raise UserError(f"{name}: a line of --- or +++ inside the YAML refused. Take it out.")
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{name}: YAML reference *{event.anchor}. Write the value out.")
            tag = getattr(event, "tag", None)
            if tag and not _MODIFIER_TAG.fullmatch(tag):
                raise UserError(f"{name}: YAML tag {tag} refused. Expected modifiers only.")
            if isinstance(event, yaml.ScalarEvent):
                refuse_code(event.value, name)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        where = textwrap.shorten(str(error), 160, placeholder=" ...")
        raise UserError(f"{name} is not YAML: {where}. Mend it at that place.") from None
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{name} is not a recipe. Expected 'name: value' lines and modifiers.")


def refuse_code(value: str, name: str) -> None:
    """Refuse an `eval(...)` that holds anything but numbers, variables and arithmetic.

    Raises:
        UserError: names the expression; it has not been evaluated.
    """
    value = value.strip()
    if not value.startswith("eval("):
        return
    inner = value[len("eval(") :].removesuffix(")")
    try:
        nodes = list(ast.walk(ast.parse(inner.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        nodes = []
    if nodes and all(is_arithmetic(node) for node in nodes):
        return
    raise UserError(
        f"{name}: {value[:80]} refused, nothing was run. Expected numbers, variables, + - * / % "
        f"and {', '.join(sorted(_FUNCTIONS))} inside eval()."
    )


def is_arithmetic(node: ast.AST) -> bool:
    """Tell whether one syntax node belongs to plain arithmetic."""
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float)
    if isinstance(node, ast.Call):
        plain = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
        return plain and not node.keywords
    return isinstance(node, _ARITHMETIC)


def has_stages(text: str) -> bool:
    """Tell whether the modifiers of a recipe stand in stages, not in lists at its top."""
    pairs = yaml.compose(text, Loader=yaml.SafeLoader).value
    stages = [value for _, value in pairs if isinstance(value, yaml.MappingNode)]
    return any("modifiers" in key.value for stage in stages for key, _ in stage.value)


def override(text: str, values: dict[str, Variable], name: str) -> str:
    """Put values into the variables at the top of a recipe; comments and order stay.

    Raises:
        UserError: a variable the recipe does not have, or a value that cannot be one.
    """
    pairs = yaml.compose(text, Loader=yaml.SafeLoader).value
    nodes = {key.value: value for key, value in pairs if isinstance(value, yaml.ScalarNode)}
    if unknown := sorted(set(values) - set(nodes)):
        known = ", ".join(sorted(nodes)) or "none"
        raise UserError(f"{name} has no variable {', '.join(unknown)}. It has: {known}.")
    # From the end to the start, so that the places of those still to come do not move.
    for key in sorted(values, key=lambda key: nodes[key].start_mark.index, reverse=True):
        start, end = nodes[key].start_mark.index, nodes[key].end_mark.index
        text = f"{text[:start]}{as_yaml(values[key], nodes[key], f'{name}: {key}')}{text[end:]}"
    refuse_danger(text, name)
    return text


def as_yaml(value: Variable, old: yaml.ScalarNode, what: str) -> str:
    """Return one value as YAML on one line; a whole number becomes a float where one stood.

    SparseML takes an int `final_sparsity` for a mapping and fails when training starts.

    Raises:
        UserError: a number that is not finite, several lines, no plain value, or a word where a
            number stood, or true or false.
    """
    if old.tag.endswith(":bool"):
        # SparseML takes every word for a yes, "false" too.
        if str(value).lower() not in ("true", "false"):
            raise UserError(f"{what}={value!r}. Expected true or false, as {old.value} is.")
        return str(value).lower()
    if isinstance(value, str) and "\n" not in value:
        try:
            value = float(value)
        except ValueError:
            # An expression is looked at by `refuse_code`.
            if old.tag.endswith((":int", ":float")) and not value.startswith("eval("):
                expected = f"Expected a number, as {old.value} is."
                raise UserError(f"{what}={value!r}. {expected}") from None
            return yaml.safe_dump(value, width=math.inf).removesuffix("\n...\n").rstrip("\n")
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{what}={value!r} is no value. Expected a finite number or one word.")
    whole = old.tag.endswith(":int") and float(value).is_integer()
    return yaml.safe_dump(int(value) if whole else float(value)).removesuffix("\n...\n")
