#!/usr/bin/env bash
# Make the table of decoders in docs/results.md: CelebAMask-HQ in data/CelebAMask-HQ, 2 epochs at 160 pixels each.
set -euo pipefail
cd "$(dirname "$0")/.."
bash runs/imagenet.sh

common="--data_dir data/CelebAMask-HQ --img_size 160 --epochs 2 --warmup_epochs 0.5 --batch_size 8 --encoder_lr 1e-4"
common="$common --apex --num_workers 1 --name table"
for decoder in Unet FPN LinkNet DeepLabv3+ Unet++; do
    python train_celeb.py $common --decoder_type $decoder --encoder_type timm-tf_efficientnet_lite0 \
        --encoder_weights data/efficientnet-lite0-57934424.pth
done
python train_celeb.py $common --decoder_type Unet --encoder_type timm-efficientnet-b0 --encoder_weights none
python -m benchmarks.table --data_dir data/CelebAMask-HQ --weights weights/*_table --plot demo/speed.png
