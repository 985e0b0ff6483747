"""Make the tables of flags in docs/flags.md and docs/flags.ko.md from the parsers of the scripts.

python -m tools.flags            # names the pages that are out of date; then the exit status is 1
python -m tools.flags --write    # updates the tables
"""

import argparse
import importlib
import re
import sys
from functools import cache
from pathlib import Path

from hair.cli import HelpFormatter

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs" / "flags.md", ROOT / "docs" / "flags.ko.md"]
SCRIPTS = ("train_celeb.py", "train_korean.py", "inference.py", "evaluate.py", "export.py", "app.py")
TABLE = re.compile(r"(<!-- flags of (\S+), [^>]*-->\n).*?(<!-- end of flags -->)", re.DOTALL)
STATED_DEFAULT = re.compile(r"\s*\(default: ([^)]*)\)")  # in a help text


@cache
def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser that a script's `build_parser` makes."""
    return importlib.import_module(script.removesuffix(".py")).build_parser()


def flag_text(action: argparse.Action) -> str:
    """How a flag is written: `--data_dir DIR …`."""
    *others, last = action.option_strings or [""]
    words = [last, action.metavar, "…" if action.nargs in ("+", "*") else ""]
    written = " ".join(str(word) for word in words if word)
    return ", ".join(f"`{name}`" for name in (*others, written))


def default_text(action: argparse.Action) -> str:
    """The value that is used if a flag is not given."""
    if action.required and action.nargs != "*":  # argparse calls a positional `*` required, too
        return "required"
    if isinstance(action.default, bool):
        return "yes" if action.default else "no"
    values = action.default if isinstance(action.default, list) else [action.default]
    if any(isinstance(value, Path) and value.is_absolute() for value in values):
        return "the shipped weights"
    if values in ([], [None]):
        stated = STATED_DEFAULT.search(action.help or "")
        return stated[1] if stated else "–"
    return f"`{' '.join(map(str, values))}`"


def meaning_text(action: argparse.Action, script: str) -> str:
    """A flag's help text, with its choices if the text does not name them."""
    text = STATED_DEFAULT.sub("", action.help or "").replace("%%", "%")
    if action.dest == "preset":
        presets = re.findall(r"^--preset (\w+): (.*)$", parser_of(script).description or "", re.MULTILINE)
        listed = "; ".join(f"`{name}`: `{flags}`" for name, flags in presets)
        return f"{listed}; flags given as well take precedence"
    if action.choices and any(str(choice) not in text for choice in action.choices):
        choices = ", ".join(f"`{choice}`" for choice in action.choices)
        return f"{text}: {choices}" if text else choices
    return text


def rows(script: str) -> list[tuple[str, str, str]]:
    """(flag, default, meaning) of each flag except --help."""
    actions = [action for action in parser_of(script)._actions if action.dest != "help"]
    return [(flag_text(action), default_text(action), meaning_text(action, script)) for action in actions]


def table(script: str) -> str:
    """A Markdown table of a script's flags; for train_korean.py only those that differ from train_celeb.py."""
    known = rows("train_celeb.py") if script == "train_korean.py" else []
    lines = [("flag", "default", "meaning"), ("---", "---", "---"), *(row for row in rows(script) if row not in known)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def update(text: str) -> str:
    """The text of a page with up-to-date tables."""
    return TABLE.sub(lambda found: f"{found[1]}\n{table(found[2])}\n{found[3]}", text)


def main() -> None:
    """Compare or update the pages. Exit status 1 if one is out of date and --write is not given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--write", action="store_true", help="update the tables")
    write = parser.parse_args().write
    outdated = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        updated = update(text)
        if updated != text:
            outdated.append(path.name)
            if write:
                path.write_text(updated, encoding="utf-8")
    if outdated and write:
        print(f"updated: {', '.join(outdated)}")
    elif outdated:
        sys.exit(f"out of date: {', '.join(outdated)}; python -m tools.flags --write")


if __name__ == "__main__":
    main()
