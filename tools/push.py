"""Upload a run folder to the Hugging Face hub, or to another server that $HF_ENDPOINT names.

    python -m tools.push weights/<run> owner/name --private
    hair me.jpg --weights hf://owner/name             # anybody who may read it runs it by its name

Log in with `hf auth login` first, or set $HF_TOKEN. SMP's `from_pretrained("owner/name")` loads its own networks from
there. `push_to_hub` would upload only the PyTorch model; this uploads the model card and the ONNX files as well.
"""

import argparse
from pathlib import Path

from hair.cli import HelpFormatter
from hair.errors import UserError, run
from hair.store import HUB, HUB_FILES, INSTALL

FILES = (*HUB_FILES, "args.json", "log.csv")
NEEDED = HUB_FILES[:2]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("repository", help="owner/name; created if it does not exist")
    parser.add_argument("--private", action="store_true", help="if it is created: only its owner may read it")
    return parser


def push(folder: Path, repository: str, private: bool = False) -> str:
    """Upload a run folder as one commit and return the address of the repository. Raises UserError."""
    if missing := [name for name in NEEDED if not (folder / name).is_file()]:
        raise UserError(f"{folder}: no {missing[0]}; only run folders of the training scripts can be uploaded")
    if not (folder / "README.md").is_file():
        raise UserError(f"{folder}: no README.md; write a model card that gives the licence and the training data")
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise UserError(f"huggingface_hub is needed to upload weights: {INSTALL}") from error
    api = HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, allow_patterns=list(FILES), commit_message=f"Upload {folder.name}"
        )
    except Exception as error:  # of the library, of its HTTP client, and OSError
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{repository}: cannot be uploaded ({reason}); hf auth login, or $HF_TOKEN, logs in") from error
    return str(address)


def main() -> None:
    args = build_parser().parse_args()
    repository = args.repository.removeprefix(HUB)
    print(f"{push(args.run, repository, args.private)}  (hair --weights {HUB}{repository})")


if __name__ == "__main__":
    run(main)
