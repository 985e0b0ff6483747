"""Commands of documents and scripts, read by the parsers of what they run."""

import argparse
import functools
import importlib
import re
import shlex
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from tests.conftest import ROOT

PLACES = ("tools.", "benchmarks.")  # of modules that are run by `python -m`


def split_lines(text: str) -> list[list[str]]:
    """The words of each command in lines of shell code, without comments; `&&` ends a command, too.

    Of a command for `parallel`, what it runs for the first of its arguments; SLURM's variables are 1.
    """
    text = re.sub(r"\$SLURM_\w+", "1", text)
    parts = re.split(r"\n|&&", text.replace("\\\n", " "))
    return [_without_parallel(words) for part in parts if (words := shlex.split(part, comments=True))]


def _without_parallel(words: list[str]) -> list[str]:
    if words[0] != "parallel":
        return words
    first = next(place for place, word in enumerate(words) if word in ("hair", "python"))
    return [word.replace("{}", "1") for word in words[first : words.index(":::")]]


def find_module(words: list[str]) -> tuple[str, list[str]] | None:
    """The module of this project that a command runs, and its flags; None for a command of somebody else's."""
    if words[0] == "hair":
        return "hair.cli", words[1:]
    if words[0] not in ("python", "torchrun"):
        return None
    if words[1] == "-m":
        return (words[2], words[3:]) if words[2].startswith(PLACES) else None
    place = next((place for place, word in enumerate(words) if word.endswith(".py")), None)
    if place is None:
        return None
    assert (ROOT / words[place]).is_file(), words[place]
    return words[place].removesuffix(".py").replace("/", "."), words[place + 1 :]


def parse(words: list[str]) -> argparse.Namespace | None:
    """What a command's `main` makes of its flags; nothing else of it is run.

    Args:
        words: the command.

    Returns:
        The flags; None for `--help` and for commands without a parser of this project.
    """
    found = find_module(words)
    if found is None:
        return None
    name, flags = found
    module = importlib.import_module(name)
    return _stop_after_parsing(module, [name, *flags]) if hasattr(module, "argparse") else None


def _stop_after_parsing(module: ModuleType, argv: list[str]) -> argparse.Namespace | None:
    parsed: list[argparse.Namespace] = []

    def and_stop(method: Callable) -> Callable:
        @functools.wraps(method)
        def parse_and_stop(parser: argparse.ArgumentParser, *args: object) -> None:
            parser.allow_abbrev = False  # documents write flags out
            parsed.append(method(parser, *args))
            sys.exit()

        return parse_and_stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", argv)
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, and_stop(getattr(argparse.ArgumentParser, name)))
        module.main()
    assert not end.value.code, f"{shlex.join(argv)}: see standard error"
    return parsed[0] if parsed else None
