"""README.md and README.ko.md say the same, and what they say can be run: flags, commands, links and numbers."""

import re
import shlex
import shutil
import subprocess
import sys

import flags
import pytest

ROOT = flags.ROOT
ENGLISH, KOREAN = (path.read_text(encoding="utf-8") for path in flags.READMES)
DOCUMENTS = ["README.md", "README.ko.md", "CONTRIBUTING.md", "data/README.md"]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
LOOP = re.compile(r"^for (\w+) in (.*?); do\n(.*?)^done$", re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """The text without code blocks and without the tables of flags."""
    return flags.TABLE.sub("", BLOCK.sub("", text))


def code(text: str) -> list[tuple[str, list[str]]]:
    """Each code block's language and its lines without comments, which are translated."""
    return [
        (language, [line for line in re.sub(r"(^|\s+)#.*", "", body, flags=re.MULTILINE).splitlines() if line])
        for language, body in BLOCK.findall(text)
    ]


def links(text: str) -> list[str]:
    """Targets of links and images inside the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", text))
    return [target.split("#")[0] for target in found if not re.match(r"\w+:|#", target)]


def tables(text: str) -> list[list[str]]:
    """The numbers of each line of each table, a line of cells without numbers being an empty string."""
    lines = [line if line.startswith("|") else "" for line in prose(text).splitlines()]
    blocks = [block.split("\n") for block in re.split(r"\n{2,}", "\n".join(lines).strip("\n"))]
    return [[" ".join(re.findall(r"\d+(?:[.,/]\d+)*%?", line)) for line in block] for block in blocks]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Script and arguments of each `python script.py …` and `torchrun … script.py …` in blocks of shell code."""
    found = []
    for language, body in BLOCK.findall(text):
        body = LOOP.sub(lambda loop: "".join(loop[3].replace(f"${loop[1]}", word) for word in loop[2].split()), body)
        parts = re.split(r"\n|&&", body.replace("\\\n", " ")) if language in ("bash", "") else []
        for part in parts:
            if re.match(r"\s*(python|torchrun) .*\.py\b", part):
                words = shlex.split(part, comments=True)
                script = next(i for i, word in enumerate(words) if word.endswith(".py"))
                found.append((words[script], words[script + 1 :]))
    return found


def test_tables_of_flags_are_up_to_date():
    for path, text in zip(flags.READMES, (ENGLISH, KOREAN), strict=True):
        assert [script for _, script, _ in flags.TABLE.findall(text)] == list(flags.SCRIPTS)
        assert flags.renewed(text) == text, f"{path.name}: python tests/flags.py --write"


def test_python_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "demo" / "1.jpg", "me.jpg")
    found = {}
    for _, body in [block for block in BLOCK.findall(ENGLISH) if block[0] == "python"]:
        exec(body, found)
    assert found["mask"].shape == found["dyed"].shape[:2] == found["several"][1].shape and found["mask"].any()


@pytest.mark.parametrize("script", flags.SCRIPTS)
def test_every_flag_has_a_default_and_a_meaning(script):
    assert all(name and default and meaning for name, default, meaning in flags.rows(script))


def test_both_languages_have_the_same_headings_code_links_and_numbers():
    levels = [re.findall(r"^#+(?= )", prose(text), re.MULTILINE) for text in (ENGLISH, KOREAN)]
    assert levels[0] == levels[1]
    assert code(ENGLISH) == code(KOREAN)
    other = {"README.md", "README.ko.md"}
    assert sorted(set(links(ENGLISH)) - other) == sorted(set(links(KOREAN)) - other)
    assert tables(ENGLISH) == tables(KOREAN)
    scores = [sorted(re.findall(r"\d\.\d{2,}|\d[\d.]*%|\d+,\d{3}", prose(text))) for text in (ENGLISH, KOREAN)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    path = ROOT / name
    missing = [target for target in links(path.read_text(encoding="utf-8")) if not (path.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_name_scripts_and_flags_that_exist(name, capsys):
    found = commands((ROOT / name).read_text(encoding="utf-8"))
    assert found
    for script, arguments in found:
        assert (ROOT / script).is_file(), script
        given = [word.split("=")[0] for word in arguments if word.startswith("--")]
        if script not in flags.SCRIPTS:
            known = set(re.findall(r'"(--[\w-]+)"', (ROOT / script).read_text(encoding="utf-8")))
            assert set(given) <= known | {"--help"}, script
            continue
        parser = flags.parser_of(script)
        assert {*given} <= {*parser._option_string_actions}, script
        if "--help" not in given:
            try:
                parser.parse_args(arguments)
            except SystemExit:
                pytest.fail(f"{script} {' '.join(arguments)}: {capsys.readouterr().err}")


def test_every_file_has_its_line_in_contributing():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    scripts = [
        path.relative_to(ROOT) for folder in (".", "data", "benchmarks") for path in (ROOT / folder).glob("*.py")
    ]
    missing = [str(path) for path in scripts if f"`{path.as_posix()}`" not in text]
    assert not missing


def test_photos_and_large_notebooks_are_refused(tmp_path):
    (tmp_path / "large.ipynb").write_bytes(b" " * 500_000)
    (tmp_path / "small.ipynb").write_bytes(b" ")

    def check(*names: str) -> str:
        command = [sys.executable, str(ROOT / ".ci" / "check_files.py"), *names]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == bool(done.stderr)
        return done.stderr

    assert not check("demo/1.jpg", "small.ipynb", "render.py")
    assert len(check("data/mine/1.JPG", "large.ipynb", "mask.png", "demo/2.jpg").splitlines()) == 3
