"""The English and the Korean pages say the same, and what they say can be run: flags, commands, links, numbers."""

import pkgutil
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from hair import HairSegmenter
from hair.store import DEFAULT_WEIGHTS
from tests.commands import parse, split_lines
from tests.conftest import ROOT
from tools import flags

PAIRS = [(path.with_suffix("").with_suffix(".md"), path) for path in sorted(ROOT.glob("*.ko.md"))]
PAIRS += [(path.with_suffix("").with_suffix(".md"), path) for path in sorted((ROOT / "docs").glob("*.ko.md"))]
ENGLISH_ONLY = ["CONTRIBUTING.md", "data/README.md", "demo/README.md"]
CARDS = sorted((ROOT / "weights").glob("*/README.md"))
PAGES = [page for pair in PAIRS for page in pair] + [ROOT / name for name in ENGLISH_ONLY] + CARDS
CODE_FOLDERS = ("hair", "training", "web", "tools", "benchmarks")
CODE = [*ROOT.glob("*.py"), *(path for folder in CODE_FOLDERS for path in (ROOT / folder).rglob("*.py"))]
OTHER_PROGRAMS = {"pip", "curl", "pytest", "ruff", "mypy", "git", "tensorboard", "coverage", "bash", "pre-commit"}
OTHER_PROGRAMS |= {"npm"}
MOST_LINES = 250  # of a README
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


every_pair = pytest.mark.parametrize("pair", PAIRS, ids=[name_of(english) for english, _ in PAIRS])
every_page = pytest.mark.parametrize("page", PAGES, ids=map(name_of, PAGES))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(text: str) -> str:
    """The text without blocks of code and without the tables of flags."""
    return flags.TABLE.sub("", BLOCK.sub("", text))


def code(text: str) -> list[tuple[str, list[str]]]:
    """Each block's language and its lines without comments, which are translated."""
    return [
        (language, [line for line in re.sub(r"(^|\s+)#.*", "", body, flags=re.MULTILINE).splitlines() if line])
        for language, body in BLOCK.findall(text)
    ]


def inline_code(text: str) -> list[str]:
    """What stands between backticks, on one line each."""
    return [" ".join(span.split()) for span in INLINE.findall(BLOCK.sub("", text))]


def anchors(text: str) -> list[str]:
    """What GitHub calls each heading in addresses."""
    titles = [title for _, title in HEADING.findall(BLOCK.sub("", text))]
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def links(page: Path) -> list[tuple[Path, int | None]]:
    """The file that each link inside the repository leads to, and the number of the heading that it names."""
    found = []
    for target in LINK.findall(BLOCK.sub("", read(page))):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        heading = None
        if anchor:
            assert anchor in anchors(read(path)), target
            heading = anchors(read(path)).index(anchor)
        found.append((path, heading))
    return found


def tables(text: str) -> list[list[str]]:
    """The numbers of each line of each table, a line of cells without numbers being an empty string."""
    lines = [line if line.startswith("|") else "" for line in prose(text).splitlines()]
    blocks = [block.split("\n") for block in re.split(r"\n{2,}", "\n".join(lines).strip("\n"))]
    return [[" ".join(re.findall(r"\d+(?:[.,/]\d+)*%?", line)) for line in block] for block in blocks]


def commands(text: str) -> list[list[str]]:
    """The words of each command: those in blocks of shell code, and what begins with a program between backticks."""
    bodies = [body for language, body in BLOCK.findall(text) if language == "bash"]
    unnamed = [body for language, body in BLOCK.findall(text) if not language]  # some show folders
    lines = [line for body in unnamed for line in body.splitlines() if line.strip().startswith("python ")]
    spans = [span for span in inline_code(text) if re.match(r"(python|torchrun|hair|pip|bash) [^<]", span)]
    return [words for part in (*bodies, *lines, *spans) for words in split_lines(part)]


# ---------------------------------------------------------------------------------------------------- two languages


def test_every_page_has_its_translation():
    assert {name_of(english) for english, _ in PAIRS} == {"README.md", *map(name_of, english_docs())}
    assert {name_of(page) for page in english_docs()} == {
        f"docs/{name}.md" for name in ("data", "deploy", "faq", "flags", "inference", "results", "scale", "training")
    }


def english_docs() -> list[Path]:
    return [path for path in (ROOT / "docs").glob("*.md") if not path.name.endswith(".ko.md")]


@every_pair
def test_both_languages_have_the_same_headings_code_and_numbers(pair):
    english, korean = map(read, pair)
    levels = [[marks for marks, _ in HEADING.findall(prose(text))] for text in (english, korean)]
    assert levels[0] == levels[1]
    assert code(english) == code(korean)
    assert tables(english) == tables(korean)
    scores = [sorted(re.findall(r"\d\.\d{2,}|\d[\d.]*%|\d+,\d{3}", prose(text))) for text in (english, korean)]
    assert scores[0] == scores[1]


@every_pair
def test_both_languages_name_the_same_flags_and_files(pair):
    wanted = re.compile(r"--\w|.*\.\w+$|.*/")
    named = [{span for span in inline_code(prose(read(page))) if wanted.match(span)} for page in pair]
    assert named[0] == named[1]


@every_pair
def test_both_languages_link_to_the_same_places(pair):
    """A page links to pages of its own language, but for its translation."""
    korean_of = dict(PAIRS)
    english, korean = ({link for link in links(page) if link[0] not in pair} for page in pair)
    assert {(korean_of.get(path, path), heading) for path, heading in english} == korean
    assert all(other in [path for path, _ in links(page)] for page, other in (pair, pair[::-1]))


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_readmes_are_short(name):
    assert len(read(ROOT / name).splitlines()) <= MOST_LINES


# ---------------------------------------------------------------------------------------------------- all pages


@every_page
def test_links_lead_somewhere(page):
    links(page)


@every_page
def test_commands_name_programs_and_flags_that_exist(page):
    extras = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    for words in commands(read(page)):
        if words[0] in ("python", "torchrun", "hair"):
            parse(words)
            continue
        assert words[0] in OTHER_PROGRAMS, words
        for word in words[1:]:
            path, _, test = word.partition("::")
            if re.search(r"\.(py|sh|txt)$", path):
                assert test in read(ROOT / path), word
            if word.startswith(".["):
                assert word[2:-1] in extras, word


@every_page
def test_flags_files_and_names_in_the_text_exist(page):
    flags_known = {flag for path in CODE for flag in re.findall(r'"(--[\w-]+)"', read(path))}
    flags_known |= {f"--no-{flag[2:]}" for flag in flags_known} | {"--help"}
    for span in inline_code(read(page)):
        if span.startswith("--"):
            assert set(re.findall(r"--[\w-]+", span)) <= flags_known, span
        if re.fullmatch(r"[\w./-]+\.(py|sh|ipynb|md)", span):
            assert (ROOT / span).exists() or (page.parent / span).exists(), span
        elif re.fullmatch(rf"({'|'.join((*CODE_FOLDERS, 'models', 'dataset', 'utils'))})(\.\w+)+", span):
            pkgutil.resolve_name(span)


# ---------------------------------------------------------------------------------------------------- single pages


@pytest.mark.parametrize("name", ["README.md", "docs/inference.md"])
def test_python_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "demo" / "1.jpg", "me.jpg")
    found = {}
    for language, body in BLOCK.findall(read(ROOT / name)):
        if language == "python":
            exec(body, found)
    assert found["mask"].shape == found["dyed"].shape[:2] == found["several"][1].shape
    assert found["mask"].any()


def test_what_every_app_does_finds_the_same_hair(tmp_path, monkeypatch):
    """The network's preprocessing in docs/deploy.md, for those who write it again in another language."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "demo" / "1.jpg", "me.jpg")
    shutil.copyfile(DEFAULT_WEIGHTS / "model.onnx", "model.onnx")
    found = {}
    exec(next(body for language, body in BLOCK.findall(read(ROOT / "docs/deploy.md")) if language == "python"), found)
    segment = HairSegmenter("model.onnx", "onnx", multi_scale=False)
    expected = segment("me.jpg") >= segment.threshold
    assert (found["mask"] & expected).sum() > 0.99 * (found["mask"] | expected).sum() > 0


@pytest.mark.parametrize("page", flags.PAGES, ids=map(name_of, flags.PAGES))
def test_tables_of_flags_are_up_to_date(page):
    text = read(page)
    assert [script for _, script, _ in flags.TABLE.findall(text)] == list(flags.SCRIPTS)
    assert flags.update(text) == text, "python -m tools.flags --write"


@pytest.mark.parametrize("script", flags.SCRIPTS)
def test_every_flag_has_a_default_and_a_meaning(script):
    assert all(name and default and meaning for name, default, meaning in flags.rows(script))


def test_every_room_has_its_line_in_contributing():
    text = read(ROOT / "CONTRIBUTING.md")
    assert not [name_of(path) for path in CODE if f"`{name_of(path)}`" not in text]


def test_every_usage_line_of_a_script_can_be_parsed():
    """Those at the top of its file, which --help prints."""
    for path in CODE:
        usage = re.match(r'(?:#!.*\n)?"""(.*?)"""', read(path), re.DOTALL)
        lines = (usage[1] if usage else "").replace("\\\\\n", " ").splitlines()
        for line in lines:
            if re.match(r" *(python|torchrun|hair) [\w-]+[. ]", line):
                parse(split_lines(line)[0])


def test_the_scores_of_the_default_model_are_the_same_everywhere():
    card = read(ROOT / "weights" / "timm-tf_efficientnet_lite0_Unet_wild" / "README.md")
    scores = [line for line in card.splitlines() if re.match(r"\| (CelebAMask-HQ|Figaro-1k|wild|MediaPipe) \|", line)]
    assert len(scores) == 4
    for page in ("README.md", "README.ko.md", "docs/results.md", "docs/results.ko.md"):
        lines = read(ROOT / page).splitlines()
        assert [line for line in lines if line in scores] == scores, page
