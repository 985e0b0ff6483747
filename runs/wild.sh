#!/usr/bin/env bash
# Make weights/timm-tf_efficientnet_lite0_Unet_wild from nothing: about thirteen and a half hours on two CPU cores.
# Needs CelebAMask-HQ in data/CelebAMask-HQ and Figaro-1k in data/figaro (data/README.md), and pictures without people
# below /usr/share, of the Debian packages that install the folders named here. A script that was stopped goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
bash runs/imagenet.sh

run=timm-tf_efficientnet_lite0_Unet_wild
packages=$(python -c "import sysconfig; print(sysconfig.get_path('purelib'))")
repeat() { printf "%0.s$2 " $(seq "$1"); }  # name a folder several times, to show its pictures more often

stage() {  # number, then flags: train stages/wild<number>, or go on with it; what is finished is not repeated
    local folder=stages/wild$1
    shift
    if [ -f "$folder/$run/args.json" ]; then
        python train_celeb.py --resume "$folder/$run"
    else
        python train_celeb.py --name wild --output_dir "$folder" --data_dir data/CelebAMask-HQ data/figaro \
            --batch_size 8 --weight_decay 1e-2 --apex --num_workers 1 --augment heavy --ema 0.998 "$@"
    fi
}
average() {  # the folder to write below stages/, then <stage>=<share> …
    local output=stages/$1
    shift
    python -m tools.average --output_dir "$output/$run" --img_size 384 $(printf "stages/%s " "$@" | sed "s,=,/$run=,g")
}

python dataset.py prepare-celeb data/CelebAMask-HQ --keep_hairless
[ -d data/backgrounds ] || python -m tools.make_backgrounds --input /usr/share/backgrounds /usr/share/wallpapers \
    /usr/share/tuxpaint/stamps /usr/share/gcompris-qt/rcc /usr/share/games/supertuxkart/data /usr/share/games/0ad
[ -d data/tables ] || python -m tools.draw_tables
[ -d data/animals ] || python -m tools.place_animals --input /usr/share/tuxpaint/stamps/animals \
    /usr/share/gcompris-qt/rcc/explore_*_animals.rcc /usr/share/plasma/avatars/photos/{Cat,Dog,Owl}.png \
    /usr/share/pixmaps/faces/cat.jpg "$packages"/gradio/media_assets/images/{cheetah,cheetah1,lion}.jpg \
    "$packages"/imgaug/quokka.jpg

stage 1 --backgrounds data/backgrounds --encoder_type timm-tf_efficientnet_lite0 \
    --encoder_weights data/efficientnet-lite0-57934424.pth --decoder_channels 128 64 48 32 16 \
    --img_size 256 384 512 --size_epochs 14 2 1 --encoder_lr 5e-5 --decoder_lr 1e-4
stage 2 --backgrounds data/backgrounds --weights stages/wild1/$run \
    --img_size 288 384 --size_epochs 15 3 --encoder_lr 4e-5 --decoder_lr 8e-5
stage 3 --backgrounds data/backgrounds --weights stages/wild2/$run \
    --img_size 320 --epochs 3 --warmup_epochs 0.2 --encoder_lr 1.5e-5 --decoder_lr 3e-5
stage 4 --backgrounds data/backgrounds --weights stages/wild3/$run \
    --img_size 288 384 --size_epochs 10 3 --warmup_epochs 0.5 --encoder_lr 4e-5 --decoder_lr 8e-5
[ -d data/hard_backgrounds ] || python -m tools.hard_backgrounds --weights stages/wild4/$run

short="--ema 0.997 --warmup_epochs 0.2"  # of stages of few epochs
hard="$(repeat 6 data/hard_backgrounds)"
stage 5 --backgrounds data/backgrounds $hard $short --weights stages/wild4/$run \
    --img_size 352 --epochs 3 --encoder_lr 2e-5 --decoder_lr 4e-5
stage 6 --backgrounds data/backgrounds $hard $hard $short --weights stages/wild5/$run \
    --img_size 352 --epochs 3 --encoder_lr 2e-5 --decoder_lr 4e-5
[ -d data/harder ] || python -m tools.hard_backgrounds --weights stages/wild6/$run \
    --backgrounds data/backgrounds data/tables --output_dir data/harder

scenes="data/backgrounds data/tables"
stage 7 --backgrounds $scenes $(repeat 4 data/harder) --weights stages/wild6/$run \
    --img_size 320 384 --size_epochs 10 3 --warmup_epochs 0.5 --encoder_lr 4e-5 --decoder_lr 8e-5
stage 8 --backgrounds $scenes $hard $hard $(repeat 3 data/harder) $short --weights stages/wild7/$run \
    --img_size 352 --epochs 3 --encoder_lr 2e-5 --decoder_lr 4e-5
stage 9 --backgrounds $scenes $hard $hard data/harder $short --weights stages/wild8/$run \
    --img_size 352 --epochs 2 --encoder_lr 2e-5 --decoder_lr 4e-5
stage 10 --backgrounds $scenes $(repeat 24 data/hard_backgrounds) $short --weights stages/wild9/$run \
    --img_size 352 --epochs 1 --encoder_lr 3e-5 --decoder_lr 6e-5
average tenth wild10=0.8 wild6=0.2
[ -d data/hardest ] || python -m tools.hard_backgrounds --weights stages/tenth/$run \
    --backgrounds data/backgrounds data/tables --output_dir data/hardest

stage 11 --backgrounds $scenes $hard $(repeat 8 data/hardest) --weights stages/tenth/$run \
    --img_size 352 384 --size_epochs 6 3 --warmup_epochs 0.3 --encoder_lr 3e-5 --decoder_lr 6e-5
animals="$(repeat 12 data/animals)"
stage 12 --backgrounds $scenes $hard $(repeat 12 data/hardest) $animals $short --weights stages/wild11/$run \
    --img_size 384 --epochs 2 --encoder_lr 3e-5 --decoder_lr 6e-5
average twelfth wild12=0.7 wild11=0.3

scenes="$scenes $hard $(repeat 4 data/hardest) $animals"
stage 13 --backgrounds $scenes --weights stages/twelfth/$run \
    --img_size 352 384 --size_epochs 6 6 --warmup_epochs 0.5 --encoder_lr 4e-5 --decoder_lr 8e-5
stage 14 --backgrounds $scenes $short --weights stages/wild13/$run \
    --img_size 384 --epochs 6 --encoder_lr 3e-5 --decoder_lr 6e-5
average fourteenth wild14=0.5 wild13=0.5
stage 15 --backgrounds $scenes --weights stages/fourteenth/$run \
    --img_size 320 384 --size_epochs 8 12 --warmup_epochs 0.5 --encoder_lr 4e-5 --decoder_lr 8e-5
average fifteenth wild15=0.5 fourteenth=0.5
stage 16 --backgrounds $scenes $short --augment light --weights stages/fifteenth/$run \
    --img_size 384 --epochs 4 --encoder_lr 2e-5 --decoder_lr 4e-5
# For the weights that are shipped, nine epochs were planned here and the second was stopped.
stage 17 --backgrounds $scenes --augment light --weights stages/wild16/$run \
    --img_size 384 --epochs 1 --warmup_epochs 0.3 --encoder_lr 4e-5 --decoder_lr 8e-5
average last fifteenth=0.4 wild16=0.4 wild17=0.2

cp stages/last/$run/{config.json,model.safetensors} weights/$run/
python export.py --weights weights/$run --format onnx --half
python evaluate.py --data_dir data/CelebAMask-HQ data/figaro --backend onnx
python -m benchmarks.robustness --data_dir data/CelebAMask-HQ data/figaro --backend onnx
