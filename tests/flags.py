"""The tables of flags in README.md and README.ko.md, made from the scripts' own parsers.

python tests/flags.py            # say which README is out of date; exit status 1 if one is
python tests/flags.py --write    # renew the tables
"""

import argparse
import importlib
import re
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
READMES = [ROOT / "README.md", ROOT / "README.ko.md"]
SCRIPTS = ("train_celeb.py", "train_korean.py", "inference.py", "evaluate.py", "export.py", "app.py")
TABLE = re.compile(r"(<!-- flags of (\S+), [^>]*-->\n).*?(<!-- end of flags -->)", re.DOTALL)
TOLD_DEFAULT = re.compile(r"\s*\(default: ([^)]*)\)")  # as some help texts tell it


@cache
def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser that a script's `build_parser` makes."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(script.removesuffix(".py")).build_parser()


def flag(action: argparse.Action) -> str:
    """How the flag is written: `--data_dir DIR …`."""
    *others, last = action.option_strings
    written = " ".join(filter(None, (last, action.metavar, "…" if action.nargs == "+" else "")))
    return ", ".join(f"`{name}`" for name in (*others, written))


def default(action: argparse.Action) -> str:
    """What holds where the flag is not given."""
    if action.required:
        return "required"
    told = TOLD_DEFAULT.search(action.help or "")
    values = action.default if isinstance(action.default, list) else [action.default]
    if told and " " in told[1]:
        return told[1]
    if values in ([], [None]):
        return "–"
    if isinstance(action.default, bool):
        return "yes" if action.default else "no"
    if any(isinstance(value, Path) and value.is_absolute() for value in values):
        return "the shipped weights"
    return f"`{' '.join(map(str, values))}`"


def meaning(action: argparse.Action, script: str) -> str:
    """The help text, with the choices where it does not name them."""
    text = TOLD_DEFAULT.sub("", action.help or "").replace("%%", "%")
    if action.dest == "preset":
        spelled = re.findall(r"^--preset (\w+): (.*)$", parser_of(script).description, re.MULTILINE)
        text = "; ".join(f"`{name}`: `{flags}`" for name, flags in spelled) + "; flags given beside it win"
    elif action.choices and any(str(choice) not in text for choice in action.choices):
        text += f"{': ' if text else ''}{', '.join(f'`{choice}`' for choice in action.choices)}"
    return text


def rows(script: str) -> list[tuple[str, str, str]]:
    """(flag, default, meaning) of each flag but --help."""
    actions = [action for action in parser_of(script)._actions if action.dest != "help"]
    return [(flag(action), default(action), meaning(action, script)) for action in actions]


def table(script: str) -> str:
    """A Markdown table of a script's flags; of train_korean.py only those that train_celeb.py has not got alike."""
    known = rows("train_celeb.py") if script == "train_korean.py" else []
    lines = [("flag", "default", "meaning"), ("---",) * 3, *(row for row in rows(script) if row not in known)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def renewed(text: str) -> str:
    """A README's text with its tables made anew."""
    return TABLE.sub(lambda found: f"{found[1]}\n{table(found[2])}\n{found[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="renew the tables")
    write, stale = parser.parse_args().write, []
    for path in READMES:
        text = path.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            stale.append(path.name)
            if write:
                path.write_text(new, encoding="utf-8")
    if stale:
        print(f"{'renewed' if write else 'out of date'}: {', '.join(stale)}")
    sys.exit(bool(stale) and not write)


if __name__ == "__main__":
    main()
