"""The house's rules: who may import whom, how long a door may be, and the same bounds wherever dependencies stand."""

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

SCRIPTS = ("train_celeb", "train_korean", "evaluate", "export", "inference", "app", "hubconf")
ROOMS = ("dataset", "models", "utils")  # at the top, beside the scripts
FOLDERS = ("hair", "training", "web", "tools", "benchmarks", "tests")
HEAVY = {"torch", "segmentation_models_pytorch", "albumentations", "pandas", "timm"}
MOST_LINES = 149  # of a script, and of utils.py
FILES = [*sorted(ROOT.glob("*.py")), *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]
TOP = {path.stem for path in ROOT.glob("*.py")} | set(FOLDERS)  # the names that the project's imports begin with


def module_of(path: Path) -> str:
    """Its name in an import: `hair.files`, or `hair` for `hair/__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in FILES}


def names_in(node: ast.Import | ast.ImportFrom, module: str, is_package: bool) -> Iterator[str]:
    """The modules that a statement imports; of `from a import b` only `a` where `a.b` is not a file of the project."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    home = node.module or ""
    if node.level:
        package = module.split(".")[: (1 if is_package else 0) - node.level or None]
        home = ".".join([*package, *([home] if home else [])])
    inner = {f"{home}.{alias.name}" for alias in node.names} & MODULES
    yield from inner
    if len(inner) < len(node.names):
        yield home


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def statements(node: ast.AST, inside_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports below a node that run: not those for types alone; those in functions if asked for."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif is_for_types_only(child) or (
            isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside_functions
        ):
            continue
        else:
            yield from statements(child, inside_functions)


def imports(path: Path, inside_functions: bool = True, text: str | None = None) -> set[str]:
    """The modules that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8") if text is None else text)
    found = statements(tree, inside_functions)
    return {name for node in found for name in names_in(node, module_of(path), path.name == "__init__.py")}


def room(name: str) -> str:
    """The folder or the file at the top that a module lies in."""
    return name.partition(".")[0]


def wrong_imports(home: str, allowed: Iterable[str]) -> list[str]:
    """Imports of the project, in the files of a folder or of a room at the top, from elsewhere than allowed."""
    files = [path for path in FILES if room(module_of(path)) == home]
    assert files, home
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in sorted(imports(path))
        if room(name) in TOP and room(name) not in {home, *allowed}
    ]


# ---------------------------------------------------------------------------------------------------- imports


def test_imports_are_seen_wherever_they_stand() -> None:
    """Otherwise the tests below would find nothing."""
    text = (
        "import numpy, hair.files as f\nfrom hair import photos, UserError\nif TYPE_CHECKING:\n    import timm\n"
        "class A:\n    import torch\n    def b(self):\n        from . import colors\n        from .errors import run\n"
        "try:\n    import av\nexcept ImportError:\n    import pandas\n"
    )
    path = ROOT / "hair" / "imagined.py"
    always = {"numpy", "hair.files", "hair.photos", "hair", "torch", "av", "pandas"}
    assert imports(path, inside_functions=False, text=text) == always
    assert imports(path, text=text) == always | {"hair.colors", "hair.errors"}
    assert len(FILES) > 40 and {"hair.files", "hair", "tools.make_sample", "dataset"} <= MODULES


@pytest.mark.parametrize(
    ("home", "allowed"),
    [
        ("hair", ()),
        ("training", ("hair", *ROOMS)),
        ("web", ("hair",)),
        *((name, ("hair", "training", *ROOMS)) for name in ROOMS),
    ],
)
def test_rooms_import_only_what_lies_below_them(home: str, allowed: tuple[str, ...]) -> None:
    assert not wrong_imports(home, allowed)


def test_no_package_and_no_room_imports_a_script() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in FILES
        if room(module_of(path)) in ("hair", "training", "web", *ROOMS)
        for name in imports(path)
        if room(name) in SCRIPTS
    ]
    assert not wrong


def test_hair_loads_nothing_heavy() -> None:
    needs_torch = ROOT / "hair" / "half_unet.py"  # may be imported inside functions only
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "hair").rglob("*.py")
        for name in imports(path, inside_functions=False)
        if (room(name) in HEAVY and path != needs_torch) or name == "hair.half_unet"
    ]
    assert not wrong


def test_no_files_import_each_other() -> None:
    """Nor in a longer circle; imports in functions count, too."""
    graph = {module_of(path): (imports(path) & MODULES) - {module_of(path)} for path in FILES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_only_scripts_and_rooms_lie_at_the_top() -> None:
    assert {path.stem for path in ROOT.glob("*.py")} == {*SCRIPTS, *ROOMS}
    assert not list((ROOT / "data").glob("*.py")), "data/ holds no code"


def test_no_file_changes_where_modules_are_found() -> None:
    bent = "sys" + ".path"
    files = [*FILES, *ROOT.glob("*.ipynb"), *(ROOT / "data").glob("*.py"), *(ROOT / "runs").rglob("*.sh")]
    assert not [str(path.relative_to(ROOT)) for path in files if bent in path.read_text(encoding="utf-8")]


# ---------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("name", ["utils", *SCRIPTS])
def test_scripts_are_flags_and_calls(name: str) -> None:
    assert len((ROOT / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= MOST_LINES


# ---------------------------------------------------------------------------------------------------- errors and files


def test_there_is_one_class_of_error_for_users() -> None:
    """`UserMessage` is what a visitor of the page reads, and `LimitError` becomes a UserError in `headers.reading`."""
    found = {
        f"{module_of(path)}.{node.name}"
        for path in FILES
        if room(module_of(path)) != "tests"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and (
            node.name.endswith("Error")
            or any(re.search(r"(Error|Exception)$", ast.unparse(base)) for base in node.bases)
        )
    }
    assert found == {"hair.errors.UserError", "hair.headers.LimitError", "web.visitors.UserMessage"}


def moves_files(path: Path) -> bool:
    """Whether a file calls `Path.replace`, of one argument where `str.replace` has two, or what does the same."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            is_replace = node.func.attr == "replace" and len(node.args) == 1 and not node.keywords
            if is_replace or ast.unparse(node.func) in ("os.replace", "shutil.move") or node.func.attr == "rename":
                return True
    return False


def test_there_is_one_atomic_writer() -> None:
    others = {
        "training/checkpoint.py",  # keeps the checkpoint before the last
        "training/exporting.py",  # OpenVINO's second file
        "models.py",  # a model's two files, from a folder that SMP filled
    }
    found = {path.relative_to(ROOT).as_posix() for path in FILES if moves_files(path)}
    assert {name for name in found if not name.startswith("tests/")} - others == {"hair/files.py"}


# ---------------------------------------------------------------------------------------------------- dependencies


def read_requirements(path: Path) -> list[Requirement]:
    """What a requirements file names, with the files that it includes."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if line.startswith("-r "):
            found += read_requirements(path.parent / line.removeprefix("-r ").strip())
        elif line:
            found.append(Requirement(line))
    return found


def bounds(requirements: Iterable[Requirement]) -> dict[str, set[tuple[str, str]]]:
    """Each package's bounds with the systems that they are for."""
    found: dict[str, set[tuple[str, str]]] = {}
    for requirement in requirements:
        assert not requirement.extras and requirement.url is None, requirement
        found.setdefault(requirement.name.lower(), set()).add(
            (str(requirement.specifier), str(requirement.marker or ""))
        )
    return found


def test_requirements_files_name_the_bounds_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    core, train, video, hub, page, litert = (
        [Requirement(text) for text in texts]
        for texts in (project["dependencies"], *(extras[name] for name in ("train", "video", "hub", "page", "litert")))
    )
    tools = [Requirement(text) for text in extras["dev"] if not text.startswith(project["name"])]
    all_else = [Requirement(text) for text in extras["dev"] if text.startswith(project["name"])]
    assert [requirement.extras for requirement in all_else] == [{"train", "video", "hub", "page", "litert"}]
    expected = {
        "requirements.txt": [*core, *train, *hub],
        "requirements-app.txt": [*core, *train, *hub, *page],
        "requirements-dev.txt": [*core, *train, *hub, *page, *video, *litert, *tools],
    }
    assert {path.name for path in ROOT.glob("requirements*.txt")} == set(expected)
    for name, requirements in expected.items():
        assert bounds(read_requirements(ROOT / name)) == bounds(requirements), name


def test_every_dependency_has_a_lower_and_an_upper_bound() -> None:
    for requirement in read_requirements(ROOT / "requirements-dev.txt"):
        assert {specifier.operator for specifier in requirement.specifier} == {">=", "<"}, requirement
