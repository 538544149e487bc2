"""Our own Python files as the architecture tests see them: paths from the root, and what their syntax trees say."""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
PRODUCT = ("api", "workflows", "activities", "memory", "ops", "bench", "worker.py")

Sources = Mapping[str, str]

_CALL_OF_ACTIVITY = re.compile(r"(execute|start)_(local_)?activity(_method|_class)?")


def read(*places: str) -> dict[str, str]:
    """Text of every Python file at or below `places`, by its path from the root."""
    files = [file for place in places for file in _files(ROOT / place)]
    return {file.relative_to(ROOT).as_posix(): file.read_text("utf-8") for file in sorted(files)}


def _files(place: Path) -> Iterator[Path]:
    return place.rglob("*.py") if place.is_dir() else iter([place])


def imports(source: str) -> set[str]:
    """Dotted names of all imports, wherever they stand; `from a import b` gives `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def importers(sources: Sources, module: str) -> set[str]:
    """Files that import `module` or something in it."""
    return {
        path
        for path, source in sources.items()
        if any(name == module or name.startswith(f"{module}.") for name in imports(source))
    }


def strays(source: str, allowed: Iterable[str]) -> set[str]:
    """Imports that are neither the standard library's nor within `allowed`; naming a parent package is fine."""
    known = [*sys.stdlib_module_names, *allowed]
    return {
        name
        for name in imports(source)
        if not any(f"{name}.".startswith(f"{place}.") or f"{place}.".startswith(f"{name}.") for place in known)
    }


def without_docstring(sources: Sources) -> set[str]:
    return {path for path, source in sources.items() if ast.get_docstring(ast.parse(source)) is None}


def mentions(sources: Sources, word: str) -> set[str]:
    return {path for path, source in sources.items() if word in source}


def environment_readers(sources: Sources) -> set[str]:
    """Files that touch the process's environment, or a library that reads it."""
    touching = {"os.environ", "os.environb", "os.getenv", "os.putenv"}
    return {
        path
        for path, source in sources.items()
        if touching & (imports(source) | _attributes(source)) or {"dotenv", "pydantic_settings"} & imports(source)
    }


def _attributes(source: str) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}


def attributes(sources: Sources) -> set[str]:
    """Last parts of all dotted expressions."""
    return {name.rpartition(".")[2] for source in sources.values() for name in _attributes(source)}


def called_activities(sources: Sources) -> set[str]:
    """Names of what workflows execute as activities: the method's own name, or the string they name it by."""
    found: set[str] = set()
    for source in sources.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and node.args and _CALL_OF_ACTIVITY.fullmatch(_last_name(node.func)):
                found.add(_last_name(node.args[0]))
    return found


def decorated(sources: Sources, decorator: str) -> set[str]:
    """Names of classes and functions under `@decorator`, called or not."""
    found: set[str] = set()
    for source in sources.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and decorator in {
                ast.unparse(item.func if isinstance(item, ast.Call) else item) for item in node.decorator_list
            }:
                found.add(node.name)
    return found


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    return str(node.value) if isinstance(node, ast.Constant) else ast.unparse(node)


def settings_table(readme: str) -> set[str]:
    """Names in the first column of the table under the heading "Settings"."""
    section = readme.partition("\n## Settings\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name.strip("` ") for cell in cells for name in cell.split(",")}
