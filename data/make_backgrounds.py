"""Collect pictures without people, small enough to load fast, for the training scripts' --backgrounds.

    apt-get install gnome-backgrounds mate-backgrounds plasma-workspace-wallpapers ukui-wallpapers \\
        lomiri-wallpapers-16.04 lomiri-wallpapers-20.04
    python data/make_backgrounds.py --input /usr/share/backgrounds /usr/share/wallpapers

Desktop wallpapers are free to use and show landscapes, plants, animals, fabrics and patterns; scikit-image, where it is
installed, adds textures. Its photos `chelsea`, `coffee` and `rocket` stay out: benchmarks/robustness.py scores on them.
"""

import argparse
from pathlib import Path

import cv2

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
TEXTURES = ["brick", "cell", "coins", "grass", "gravel", "horse", "hubble_deep_field", "ihc", "moon", "motorcycle_left"]
TEXTURES += ["page", "retina", "text", "clock_motion"]


def scikit_image_textures() -> list[Path]:
    """The pictures named in TEXTURES that the installed scikit-image ships; none without it."""
    try:
        import skimage
    except ImportError:
        return []
    return [path for path in (Path(skimage.__file__).parent / "data").iterdir() if path.stem in TEXTURES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, nargs="+", required=True, help="folders, read with all that is in them")
    default = Path(__file__).parent / "backgrounds"
    parser.add_argument("--output_dir", type=Path, default=default, help="(default: data/backgrounds)")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    files = sorted(path for folder in args.input for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    files = [path for path in files if path.stat().st_size > 60_000 and path.stem != "screenshot"]
    seen: set[bytes] = set()
    for path in files + sorted(scikit_image_textures()):
        picture = cv2.imread(str(path))
        if picture is None:
            continue
        # One wallpaper comes in many sizes and in a light and a dark form: keep what differs when seen small.
        key = (cv2.resize(picture, (16, 16), interpolation=cv2.INTER_AREA) // 24).tobytes()
        if key in seen:
            continue
        scale = min(1.0, 1024 / max(picture.shape[:2]))
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(args.output_dir / f"{len(seen):03d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
        seen.add(key)
    print(f"{len(seen)} pictures in {args.output_dir}")


if __name__ == "__main__":
    main()
