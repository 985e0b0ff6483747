#!/usr/bin/env bash
# Make weights/timm-tf_efficientnet_lite0_Unet_celeb from nothing: about an hour and three quarters on two CPU cores.
# Needs CelebAMask-HQ in data/CelebAMask-HQ (data/README.md) and pictures without people, see runs/wild.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
bash runs/imagenet.sh

run=timm-tf_efficientnet_lite0_Unet_celeb
common="--name celeb --data_dir data/CelebAMask-HQ --batch_size 8 --weight_decay 1e-2 --apex --num_workers 1"
backgrounds="--backgrounds data/backgrounds data/animals"
python dataset.py prepare-celeb data/CelebAMask-HQ --keep_hairless

python train_celeb.py $common --output_dir stages/celeb1 --backgrounds data/backgrounds --augment heavy --ema 0.998 \
    --encoder_type timm-tf_efficientnet_lite0 --encoder_weights data/efficientnet-lite0-57934424.pth \
    --decoder_channels 128 64 48 32 16 --img_size 256 384 --size_epochs 6 2 --encoder_lr 5e-5 --decoder_lr 1e-4
python train_celeb.py $common --output_dir stages/celeb2 $backgrounds --augment heavy --ema 0.998 \
    --weights stages/celeb1/$run --img_size 320 384 --size_epochs 5 2 --warmup_epochs 0.5 \
    --encoder_lr 4e-5 --decoder_lr 8e-5
python train_celeb.py $common --output_dir stages/celeb3 $backgrounds --augment light --ema 0.997 \
    --weights stages/celeb2/$run --img_size 384 --epochs 6 --warmup_epochs 0.3 --encoder_lr 3e-5 --decoder_lr 6e-5
python -m tools.average --output_dir weights/$run stages/celeb3/$run=1
python evaluate.py --data_dir data/CelebAMask-HQ --weights weights/$run --backend torch
