"""Find the hair in the photos of a folder on a Ray cluster; the masks become rows of Parquet files.

    pip install "ray[data]"
    python -m tools.ray_segment holiday/ masks/ --workers 8

Each row has `path`, `height`, `width`, `counts` and `error`. `counts` is the mask as run lengths, see
`hair.outlines.run_lengths`; `error` is empty, or says why a photo could not be read. All machines need this project and
the photos at the same place; Ray itself finds the cluster ($RAY_ADDRESS), or starts one on this machine.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hair import HairSegmenter, UserError, read_photo
from hair.cli import WEIGHTS_HELP, HelpFormatter, number
from hair.errors import run
from hair.outlines import run_lengths
from hair.photos import find_photos

if TYPE_CHECKING:
    import pyarrow

BATCH = 16  # photos: enough for one task of Ray, and few to repeat if a machine fails
CORES = 1  # of each worker


class Segmenter:
    """An actor of Ray: it opens the network once and keeps it."""

    def __init__(self, weights: str | None) -> None:
        self.segment = HairSegmenter(weights, threads=CORES)

    def __call__(self, batch: "pyarrow.Table") -> "pyarrow.Table":
        import pyarrow

        counts = pyarrow.list_(pyarrow.int64())
        columns = {"path": "string", "height": "int64", "width": "int64", "counts": counts, "error": "string"}
        return pyarrow.Table.from_pylist(list(map(self.row, batch["path"].to_pylist())), pyarrow.schema(columns))

    def row(self, path: str) -> dict:
        """The row of one photo."""
        try:
            mask = run_lengths(self.segment(read_photo(path)) >= self.segment.threshold)
        except (UserError, OSError) as error:
            return {"path": path, "height": 0, "width": 0, "counts": [], "error": str(error)}
        height, width = mask["size"]
        return {"path": path, "height": height, "width": width, "counts": mask["counts"], "error": ""}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("input", type=Path, help="a folder of photos, with its subfolders")
    parser.add_argument("output", type=Path, help="folder of the Parquet files; it must be new or empty")
    parser.add_argument(
        "--workers", type=number(int, 1), default=1, metavar="N", help="actors, on all machines together"
    )
    parser.add_argument("--weights", metavar="RUN", help=WEIGHTS_HELP)
    return parser


def main() -> None:
    args = build_parser().parse_args()
    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        raise UserError(f"{args.output}: already has files; choose another folder")
    photos = [{"path": str(path)} for path in find_photos([args.input.resolve()], recursive=True)]
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError('Ray is not installed: pip install "ray[data]"') from error
    workers = ray.data.ActorPoolStrategy(size=args.workers)
    options = {"batch_size": BATCH, "batch_format": "pyarrow", "fn_constructor_args": [args.weights]}
    rows = ray.data.from_items(photos).map_batches(Segmenter, compute=workers, num_cpus=CORES, **options)
    rows.write_parquet(str(args.output.resolve()))
    failed = ray.data.read_parquet(str(args.output.resolve()), columns=["error"]).filter(expr="error != ''").count()
    print(f"{args.output}: {len(photos)} photos, {failed} of them could not be read")


if __name__ == "__main__":
    run(main)
