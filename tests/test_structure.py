"""The house: imports point one way only, and nothing in the package knows PyTorch."""

import ast
from pathlib import Path

import pytest

import omni_jax

PACKAGE = Path(omni_jax.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
# Each room may import those before it in its list, beside itself, config.py and errors.py.
ALLOWED = {"models": {"sharding"}, "data": set(), "weights": {"sharding", "models"},
           "inference": {"sharding", "models", "data", "weights"}, "sharding": set(),
           "training": {"sharding", "models", "data", "weights", "inference"},
           "config": {"speech_config"}, "speech_config": set(), "errors": set()}


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_up(path):
    names = imported(path)
    assert not [name for name in names if name.split(".")[0] in ("torch", "transformers", "tools", "tests")]
    if room(path) != "__init__":
        rooms = {name.split(".")[1] for name in names if name.startswith("omni_jax.")} - {"OmniError"}
        assert rooms <= ALLOWED[room(path)] | {room(path), "config", "errors"}


def test_files_stay_readable():
    """A file that has outgrown 400 lines has a seam."""
    long = {path.name: lines for path in FILES if (lines := len(path.read_text().splitlines())) > 400}
    assert not long


def test_nothing_is_unpickled_freely():
    for path in FILES:
        assert not imported(path) & {"dill", "cloudpickle", "joblib", "pickle.load", "pickle.loads"}
        assert "pickle.load(" not in path.read_text()
