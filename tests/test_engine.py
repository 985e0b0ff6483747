"""One epoch of training, the counting of pixels, and what flags change."""

import copy
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import segmentation_models_pytorch as smp
import torch
from scripts import TINY, run

import engine
import models
import report
import train_celeb
import train_korean
from augment import eval_transform
from dataset import EpochSampler, HairDataset, PhotoSet, build_loader, open_folder, split
from utils import UserError, scores

CPU = torch.device("cpu")
MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORMALISE = models.Normalise(*MEAN_STD)


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Namespace]:
    """Let a training script parse flags, and give them instead of training."""

    def parsed(*flags: object, script: object = train_celeb) -> Namespace:
        seen = []
        monkeypatch.setattr(sys, "argv", ["script", *map(str, flags)])
        monkeypatch.setattr(engine, "train", lambda args, open_indexes: seen.append(args))
        script.main()
        return seen[0]

    return parsed


@pytest.fixture
def photos(celeb: Path) -> tuple[PhotoSet, PhotoSet]:
    return split([open_folder(celeb)], 0, 5, 20)


def build(args: Namespace, photos: tuple[PhotoSet, PhotoSet]) -> tuple:
    """A state and the two loaders."""
    state, _ = engine.build_state(args, CPU, len(photos[0]))
    sets = (HairDataset(part, eval_transform(64)) for part in photos)
    return state, *engine.build_loaders(args, *sets, CPU)


def test_counts_are_those_of_smp(photos: tuple[PhotoSet, PhotoSet]) -> None:
    torch.manual_seed(0)  # an untrained network must find some hair
    model = models.build_model("tu-test_efficientnet", "Unet")
    dataset = HairDataset(photos[0], eval_transform(64))
    _, counts = engine.evaluate(model, build_loader(dataset, 5, 0), NORMALISE, models.build_loss("bce"), CPU)
    images, masks, _ = (torch.stack([torch.as_tensor(x) for x in part]) for part in zip(*dataset, strict=True))
    with torch.inference_mode():
        probability = model.eval()(NORMALISE(images)).sigmoid()
    expected = smp.metrics.get_stats(probability, masks.long(), mode="binary", threshold=0.5)
    assert int(counts[0].sum()) > 0 and torch.equal(counts.sum(0), torch.full((16, 1), 64 * 64))
    # Another batch size may round a logit near 0 to its other side.
    assert (counts - torch.stack(expected)).abs().max() <= 1


def test_scores_without_hair_are_numbers() -> None:
    nothing, full = torch.zeros(2, 1, dtype=torch.int64), torch.full((2, 1), 64)
    ideal = {"dice": 1, "iou": 1, "dice_per_photo": 1, "precision": 0, "recall": 0}
    assert scores(nothing, nothing, nothing, full) == ideal


def test_a_loss_that_is_not_finite_names_the_files(
    photos: tuple[PhotoSet, PhotoSet], parse: Callable[..., Namespace]
) -> None:
    args = parse(*TINY)
    state, loader, _ = build(args, photos)
    bce, seen = models.build_loss("bce"), []

    def loss_fn(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        seen.append(masks)
        return bce(logits, masks) * (float("nan") if len(seen) == 3 else 1)

    with pytest.raises(UserError, match="loss is nan in epoch 1 on") as error:
        engine.train_one_epoch(state, loader, NORMALISE, loss_fn, CPU, args)
    third = [photos[0].path(i).name for i, _ in list(loader.sampler)[4:6]]
    named = [Path(path.strip()).name for path in str(error.value).split(" on ")[1].split(";")[0].split(",")]
    assert named == third


def test_the_last_group_of_batches_may_be_short(
    photos: tuple[PhotoSet, PhotoSet], parse: Callable[..., Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = parse(*TINY, "--max_grad_norm", 0)  # 8 batches in groups of 3, 3 and 2
    state, loader, _ = build(args, photos)
    weight, gradients = state.model.segmentation_head[0].weight, []
    monkeypatch.setattr(engine, "_step", lambda *_: gradients.append(weight.grad.clone()) or weight.grad.zero_())
    engine.train_one_epoch(state, loader, NORMALISE, lambda logits, _: weight.sum(), CPU, args)
    assert [float(g.mean()) for g in gradients] == pytest.approx([1, 1, 1])


def test_frozen_encoder(photos: tuple[PhotoSet, PhotoSet], parse: Callable[..., Namespace]) -> None:
    args = parse(*TINY, "--freeze_encoder_epochs", 1)
    state, loader, _ = build(args, photos)
    changed = []
    for epoch in range(2):
        before = {key: value.clone() for key, value in state.model.state_dict().items()}
        engine.train_one_epoch(state, loader, NORMALISE, models.build_loss("bce"), CPU, args)
        state.epoch, state.batch = epoch + 1, 0
        after = state.model.state_dict()
        changed.append({key.split(".")[0] for key, value in before.items() if not torch.equal(value, after[key])})
    assert changed == [{"decoder", "segmentation_head"}, {"encoder", "decoder", "segmentation_head"}]


def test_the_largest_seed(photos: tuple[PhotoSet, PhotoSet], parse: Callable[..., Namespace]) -> None:
    args = parse(*TINY, "--seed", 2**32 - 1, "--epochs", 1)
    state, loader, _ = build(args, photos)
    engine.train_one_epoch(state, loader, NORMALISE, models.build_loss("bce"), CPU, args)
    assert state.batch == 8
    state.epoch = 3
    assert engine._dropout_seed(42, state) == (42 * 100_003 + 3) * 1_000_003 + 8, "as ever"


def test_a_teacher_has_half_the_say(
    photos: tuple[PhotoSet, PhotoSet], parse: Callable[..., Namespace], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    runs = [tmp_path / name for name in ("one", "two")]
    networks = [models.build_model("tu-test_efficientnet", decoder).eval() for decoder in ("Unet", "FPN")]
    facts = [{"mean": MEAN_STD[0], "std": MEAN_STD[1]}, {"mean": (0.5,) * 3, "std": (0.5,) * 3}]
    for run_, network, fact in zip(runs, networks, facts, strict=True):
        models.save_model(network, run_, fact)
    args = parse(*TINY, "--teacher", *runs)
    state, loader, _ = build(args, photos)
    bce, targets = models.build_loss("bce"), []
    engine.train_one_epoch(
        state, loader, NORMALISE, lambda logits, target: targets.append(target) or bce(logits, target), CPU, args
    )
    sampler = loader.sampler
    sampler.start = 0
    images, masks, _ = next(iter(loader))
    with torch.no_grad():
        found = [
            network(models.Normalise(**fact)(images)).sigmoid() for network, fact in zip(networks, facts, strict=True)
        ]
    assert len(targets) == len(loader) and state.teacher.training is False
    torch.testing.assert_close(targets[0], masks.float() / 2 + sum(found) / 4)


def test_training_starts_from_weights_and_their_architecture(
    photos: tuple[PhotoSet, PhotoSet], parse: Callable[..., Namespace], tmp_path: Path
) -> None:
    model = models.build_model("timm-efficientnet-b0", "Unet", None, [32, 24, 16, 16, 8])
    facts = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "img_size": 64, "threshold": 0.5}
    models.save_model(model, tmp_path, facts)
    args = parse("--weights", tmp_path)
    assert args.img_size == [64]
    assert args.encoder_type == "timm-efficientnet-b0"
    state, own = engine.build_state(args, CPU, len(photos[0]))
    assert (own["mean"], own["std"]) == (facts["mean"], facts["std"])
    for key, value in model.state_dict().items():
        assert torch.equal(value, state.model.state_dict()[key])
    with pytest.raises(UserError, match="another network"):
        engine.build_state(parse("--weights", tmp_path, "--decoder_channels", 64, 32, 16, 16, 8), CPU, len(photos[0]))
    with pytest.raises(UserError, match="name the folder of a run"):
        parse("--weights", tmp_path / "nothing")


def test_depthwise_convolutions_stay_out_of_bf16() -> None:
    torch.manual_seed(0)
    model = models.build_model("timm-tf_efficientnet_lite0", "Unet", None).eval()
    images = torch.rand(1, 3, 64, 64)
    exact = model(images)
    engine.depthwise_in_float32(model)
    average = copy.deepcopy(model)  # as the EMA copies it: the copy must compute with its own weights
    types = {True: set(), False: set()}
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            depthwise = module.groups == module.in_channels
            module.register_forward_hook(lambda _, __, out, depthwise=depthwise: types[depthwise].add(out.dtype))
    with engine.autocast(CPU, True):
        logits = model(images).float()
    assert types == {True: {torch.float32}, False: {torch.bfloat16}}
    assert (logits - exact).std() < 0.1 * exact.std()
    for parameter in model.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(average(images), exact)


def test_early_stopping(parse: Callable[..., Namespace]) -> None:
    args = parse("--img_size", 64, 96, "--size_epochs", 3, 9, "--patience", 2)
    dice = [0.9, 0.8, 0.8, 0.5, 0.6, 0.6, 0.5]
    history = [{"epoch": i + 1, "img_size": 64 if i < 3 else 96, "valid_dice": d} for i, d in enumerate(dice)]
    ends = [engine.is_finished(args, Namespace(epoch=n, history=history[:n])) for n in range(8)]
    assert ends == [False] * 7 + [True], "only at the last size, two epochs after its best"
    again = [*history, {"epoch": 8, "img_size": 64, "valid_dice": 0.7}]
    assert [engine.best_row(rows)["epoch"] for rows in (history[:3], history, again)] == [1, 5, 8]


def test_shares_of_processes_make_up_the_order_of_one() -> None:
    one = EpochSampler(23, seed=1, batch_size=2)
    shares = [list(EpochSampler(23, seed=1, batch_size=2, rank=rank, processes=2)) for rank in range(2)]
    dealt = [photo for i in range(0, 10, 2) for share in shares for photo in share[i : i + 2]]
    assert dealt == list(one)[:20] and all(len(share) == 10 for share in shares)
    whole, one.start = list(one), 6
    assert list(one) == whole[6:] and len(one) == 16


def test_presets_are_printed_and_flags_win(parse: Callable[..., Namespace], capsys: pytest.CaptureFixture) -> None:
    light, heavy = (parse("--preset", name, script=train_korean) for name in ("light", "heavy"))
    assert (light.epochs, light.augment, light.name) == (10, "light", "light")
    assert light.encoder_type == "timm-efficientnet-b0"
    assert (heavy.epochs, heavy.augment, heavy.name) == (20, "heavy", "heavy")
    mine = parse("--epochs", 3, "--preset", "heavy", "--augment", "none", script=train_korean)
    assert (mine.epochs, mine.augment, mine.encoder_type) == (3, "none", heavy.encoder_type)
    with pytest.raises(SystemExit):
        parse("--help", script=train_korean)
    text = " ".join(capsys.readouterr().out.split())
    for preset in train_korean.PRESETS.values():
        assert all(f"--{key} {value}" in text for key, value in preset.items())


def test_epochs_beside_several_sizes(parse: Callable[..., Namespace]) -> None:
    assert parse("--img_size", 64, 96, "--size_epochs", 3, 9).epochs == 12
    with pytest.raises(UserError, match="--size_epochs sets"):
        parse("--img_size", 64, 96, "--size_epochs", 3, 9, "--epochs", 30)


def test_all_folds(celeb: Path, tmp_path: Path) -> None:
    flags = ("--data_dir", celeb, "--fold", "all", "--n_folds", 2, "--epochs", 1)
    assert run(tmp_path, *TINY, *flags) == 0, (tmp_path / "out.txt").read_text()
    folder = next((tmp_path / "weights").iterdir())
    table = pd.read_csv(folder / "folds.csv", index_col="fold")
    logs = [pd.read_csv(folder / f"{folder.name.replace('celeb', f'fold{k}')}" / "log.csv") for k in range(2)]
    dice = [log["valid_dice"][0] for log in logs]
    assert table["valid_dice"].tolist() == pytest.approx([*dice, sum(dice) / 2, abs(dice[0] - dice[1]) / 2**0.5])
    assert dice[0] != dice[1]
    before = (folder / "folds.csv").read_bytes()
    assert run(tmp_path, "--resume") == 0
    assert (tmp_path / "out.txt").read_text().count("nothing to do") == 2
    assert (folder / "folds.csv").read_bytes() == before


def test_worst_photos_are_pictured(photos: tuple[PhotoSet, PhotoSet]) -> None:
    dataset = HairDataset(photos[0], eval_transform(64))
    model = models.build_model("tu-test_efficientnet", "Unet").eval()
    _, counts = engine.evaluate(model, build_loader(dataset, 8, 0), NORMALISE, models.build_loss("bce"), CPU)
    pictures = report.picture_worst(model, dataset, counts, {"mean": MEAN_STD[0], "std": MEAN_STD[1]}, number=3)
    assert pictures.shape == (3, 3, 64, 64) and pictures.min() >= 0 and pictures.max() <= 1
    worst = smp.metrics.f1_score(*counts, reduction="none", zero_division=1.0).argmin()
    image, mask, _ = dataset[int(worst)]
    with torch.inference_mode():
        found, hair = model(NORMALISE(image[None]))[0, 0] >= 0, mask[0] > 0
    plain = image / 255
    green, blue = torch.tensor([0.0, 1, 0]), torch.tensor([0.0, 0, 1])
    for pixels, colour in ((found & hair, green), (hair & ~found, blue), (~found & ~hair, None)):
        expected = plain[:, pixels] if colour is None else (plain[:, pixels] + colour[:, None]) / 2
        torch.testing.assert_close(pictures[0][:, pixels], expected)
