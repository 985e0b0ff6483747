"""Export a trained network, so that it runs without PyTorch.

    python export.py --weights weights/<run> --format onnx              # weights/<run>/model.onnx
    python export.py --weights weights/<run> --format onnx --half       # half the size, the same speed
    python export.py --weights weights/<run> --format onnx --int8 DIR   # model_int8.onnx, calibrated on photos in DIR
    python export.py --weights weights/<run> --format openvino          # model.xml, with its weights in model.bin
    python export.py --weights weights/<run> --format torchscript       # model.torchscript
    python export.py --weights weights/<run> --format litert --half     # model.tflite, for Android; also --int8 DIR
    python export.py --weights weights/<run> --format coreml --half     # model.mlpackage, for iOS; not compared

Before the file is saved, its results are compared with PyTorch on photos. `inference.py --weights FILE` uses it. Its
metadata contain size, mean, std and threshold.
"""

import argparse
from pathlib import Path

from hair.cli import HelpFormatter, number
from hair.errors import UserError, run
from hair.store import DEFAULT, HUB, find_weights

SUFFIXES = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "torchscript": ".torchscript",
    "litert": ".tflite",
    "coreml": ".mlpackage",
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--weights",
        default=DEFAULT,
        metavar="RUN",
        help="a run folder, a name of hair --list_weights, or hf://owner/name",
    )
    parser.add_argument("--format", choices=SUFFIXES, default="onnx", help="format of the file")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="file to write (default: model.onnx and so on in the run folder)"
    )
    parser.add_argument(
        "--img_size", type=number(int, 32), help="input size in pixels (default: the size at which it was trained)"
    )
    parser.add_argument("--half", action="store_true", help="store the weights in float16")
    parser.add_argument(
        "--int8", type=Path, metavar="DIR", help="int8 ONNX or LiteRT, calibrated on the photos in this folder"
    )
    parser.add_argument(
        "--opset", type=number(int, 13), metavar="N", help="ONNX opset (default: the oldest that the network allows)"
    )
    return parser


def main() -> None:
    args = build_parser().parse_args()
    if args.img_size and args.img_size % 32:
        raise UserError(f"--img_size {args.img_size} is not a multiple of 32")
    if args.int8 and (args.half or args.format not in ("onnx", "litert")):
        raise UserError("--int8 goes with --format onnx or litert, and without --half")
    if args.opset and args.format != "onnx":
        raise UserError("--opset goes with --format onnx only")
    name = f"model{'_int8' if args.int8 else ''}{SUFFIXES[args.format]}"
    if args.weights.startswith(HUB) and not args.output:
        raise UserError(f"--weights {args.weights}: add --output FILE; a downloaded run folder stays as it is")
    weights = find_weights(args.weights)
    output = args.output or weights / name
    if output.suffix != SUFFIXES[args.format]:
        raise UserError(f"{output}: --format {args.format} writes {SUFFIXES[args.format]} files")

    from training import exporting  # torch takes seconds to import, so it comes after --help and mistyped flags

    if args.int8:
        exporting.export_int8(weights, args.int8, output, args.img_size, args.opset)
    else:
        exporting.export(weights, args.format, output, args.half, args.img_size, args.opset)


if __name__ == "__main__":
    run(main)
