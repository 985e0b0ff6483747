"""The weights that have a name, and weights that are downloaded: to the path of a file or run folder.

Downloads go into the user's cache and work without a network afterwards. Only files that cannot run code are
downloaded: ONNX, safetensors, JSON and Markdown.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urldefrag, urlsplit

from hair.errors import UserError

PACKAGE = Path(__file__).resolve().parent
RUNS = PACKAGE.parent / "weights"  # in a checkout
CACHE = "hair-segmentation"  # name of the folder in the user's cache
HUB = "hf://"
HUB_FILES = ("config.json", "model.safetensors", "model*.onnx", "README.md")  # of a run folder; the others stay there
INSTALL = 'pip install ".[hub]"'
NON_COMMERCIAL = "non-commercial research only"


@dataclass(frozen=True)
class Weights:
    """Weights with a name.

    Attributes:
        places: run folders that hold them, in an installed wheel or in a checkout; the first that exists is used.
        file: the file to download; of a run folder, one that has its weights.
        sha256: of that file, in hexadecimal.
        size: of that file, in bytes.
        licence: what the weights may be used for.
        address: where to download the file if it is in none of the places; empty: nowhere.
    """

    places: tuple[Path, ...]
    file: str
    sha256: str
    size: int
    licence: str
    address: str = ""

    def folder(self) -> Path | None:
        """The run folder on this machine; None if there is none."""
        return next((place for place in self.places if place.is_dir()), None)


DEFAULT = "wild"
INSTALLED_WEIGHTS = PACKAGE / "weights" / DEFAULT
TABLE = {
    "wild": Weights(
        (INSTALLED_WEIGHTS, RUNS / "timm-tf_efficientnet_lite0_Unet_wild"),
        "model.onnx",
        "bbbe71395a738cef7b519248f867fe35a784f02974f6648662a064894104e02d",
        8_036_317,
        NON_COMMERCIAL,
    ),
    "celeb": Weights(
        (RUNS / "timm-tf_efficientnet_lite0_Unet_celeb",),
        "model.safetensors",
        "b07b2d93fb0fefa29092d855b0d39193f6349fbb1193d5b8755550d0ae214358",
        8_705_650,
        NON_COMMERCIAL,
    ),
}
DEFAULT_WEIGHTS = TABLE[DEFAULT].folder() or TABLE[DEFAULT].places[-1]


def find_weights(weights: str | Path | None = None) -> Path:
    """The file or run folder that a user means; downloads it if necessary.

    Args:
        weights: a name in TABLE; an address such as `https://example.com/model.onnx#sha256=…`; a repository of the
            Hugging Face hub, `hf://owner/name` or `hf://owner/name@revision`; or a path. A `Path` is always a path, and
            so is text such as `./wild`. None: the default weights.

    Raises:
        FileNotFoundError: text that is none of these.
        UserError: weights that are not here and cannot be downloaded, or that are not what the hash says.
    """
    if weights is None:
        return DEFAULT_WEIGHTS
    if isinstance(weights, Path):
        return weights
    if weights in TABLE:
        return _find_named(weights)
    if weights.startswith(HUB):
        return pull(weights)
    if weights.startswith(("https://", "http://")):
        address, fragment = urldefrag(weights)
        return download(address, fragment.removeprefix("sha256="))
    if not (path := Path(weights)).exists():
        raise FileNotFoundError(f"{path}: no such file or folder; hair --list_weights shows the weights with a name")
    return path


def _find_named(name: str) -> Path:
    entry = TABLE[name]
    if folder := entry.folder():
        return folder
    if not entry.address:
        raise UserError(f"--weights {name}: comes with the repository, not with the installed package; clone it")
    return download(entry.address, entry.sha256)


def cache_folder() -> Path:
    """The user's cache folder for downloaded weights. Raises UserError where pooch is missing."""
    try:
        import pooch
    except ImportError as error:
        raise UserError(f"pooch is needed to download weights: {INSTALL}, or pip install pooch") from error
    return pooch.os_cache(CACHE) / "weights"


def download(address: str, sha256: str) -> Path:
    """A downloaded file in the cache; one that is there already is only verified.

    Args:
        address: of an ONNX file, `https://` or `http://`.
        sha256: of the file, in hexadecimal.

    Raises:
        UserError: an address without a hash, no pooch, no network, or a file that is not what the hash says.
    """
    name = PurePosixPath(urlsplit(address).path).name
    if not name.endswith(".onnx"):
        raise UserError(f"{address}: only .onnx files are downloaded; for a run folder use {HUB}owner/name")
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UserError(f"{address}: add #sha256=… with the 64 digits that sha256sum prints for the file")
    folder = cache_folder() / sha256[:16].lower()
    import pooch

    pooch.get_logger().setLevel("WARNING")  # the line below is enough
    if not (folder / name).exists():
        print(f"downloading {address}", file=sys.stderr)
    try:
        has_bar = sys.stderr.isatty()
        file = pooch.retrieve(address, f"sha256:{sha256.lower()}", fname=name, path=folder, progressbar=has_bar)
    except ValueError as error:  # the hash; or an address that requests cannot read
        reason = "is not the file that sha256 says" if "hash" in str(error) else f"cannot be downloaded ({error})"
        raise UserError(f"{address}: {reason}") from error
    except OSError as error:  # also those of requests
        raise UserError(f"{address}: cannot be downloaded ({_first_line(error)})") from error
    return Path(file)


def pull(address: str) -> Path:
    """A run folder from the Hugging Face hub, in that library's own cache. Without a network, the cached one is used.

    Args:
        address: `hf://owner/name`, or `hf://owner/name@revision` for a branch, tag or commit.

    Raises:
        UserError: no huggingface_hub, no such repository, no network, or no weights in it.
    """
    repository, _, revision = address.removeprefix(HUB).strip("/").partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"{address}: write {HUB}owner/name or {HUB}owner/name@revision")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    except ImportError as error:
        raise UserError(f"{address}: needs huggingface_hub: {INSTALL}, or pip install huggingface_hub") from error
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(HUB_FILES)))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(f"{address}: not found; a private repository needs hf auth login, or $HF_TOKEN") from error
    except Exception as error:  # of the library, of its HTTP client, and OSError
        raise UserError(f"{address}: cannot be downloaded ({_first_line(error)})") from error
    if not any(any(folder.glob(pattern)) for pattern in HUB_FILES[1:3]):
        raise UserError(f"{address}: contains neither model.safetensors nor model.onnx")
    return folder


def list_weights() -> str:
    """A table of the weights with a name: name, size, licence and place."""
    rows = [("name", "size", "licence", "where")]
    for name, entry in TABLE.items():
        folder = entry.folder()
        where = str(folder) if folder else entry.address or "comes with the repository only"
        rows.append((name, f"{entry.size / 1e6:.1f} MB", entry.licence, where))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
