"""Write the dyes and the numbers of `hair/` for the page that runs in the browser: `web/ondevice/src/tables.json`.

python -m tools.page_tables            # tells whether the file is out of date; then the exit status is 1
python -m tools.page_tables --write    # updates it
"""

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType

from hair import colors, cutout, dye, looks, opacity, refine, tones
from hair.files import write_bytes
from web.texts import translate_color

TABLES = Path(__file__).resolve().parents[1] / "web" / "ondevice" / "src" / "tables.json"
MODULES = (tones, dye, opacity, refine, looks, cutout)


def numbers(module: ModuleType) -> dict[str, object]:
    """The constants of a module that are numbers or tuples of numbers; those it imports, too."""
    return {
        name: value
        for name, value in vars(module).items()
        if name.isupper()
        and all(isinstance(part, int | float) for part in (value if isinstance(value, tuple) else (value,)))
    }


def build() -> str:
    """The content of TABLES."""
    dyes = [
        {"name": name, "color": color, **{language: translate_color(name, language) for language in ("en", "ko")}}
        for name, color in colors.HAIR_COLORS.items()
    ]
    tables = {"dyes": dyes} | {module.__name__.partition(".")[2]: numbers(module) for module in MODULES}
    return json.dumps(tables, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    """Check or update the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="update the file")
    args = parser.parse_args()
    if args.write:
        write_bytes(TABLES, build().encode())
    elif not TABLES.is_file() or TABLES.read_text(encoding="utf-8") != build():
        sys.exit(f"{TABLES.name} is out of date: python -m tools.page_tables --write")


if __name__ == "__main__":
    main()
