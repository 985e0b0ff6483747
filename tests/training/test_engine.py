"""One epoch of training, and the counting of pixels."""

from dataclasses import replace
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch

import models
from dataset import HairDataset, PhotoSet, build_loader
from hair.errors import UserError
from tests.scripts import TINY
from tests.training.states import BCE, MEAN_STD, NORMALISE, build, make_plan
from training import engine
from training.augment import eval_transform


def test_counts_are_those_of_smp(photos: tuple[PhotoSet, PhotoSet]) -> None:
    torch.manual_seed(0)  # an untrained network must find some hair
    model = models.build_model("tu-test_efficientnet", "Unet")
    dataset = HairDataset(photos[0], eval_transform(64))
    _, counts = engine.evaluate(model, build_loader(dataset, 5, 0), BCE)
    images, masks, _ = (torch.stack([torch.as_tensor(x) for x in part]) for part in zip(*dataset, strict=True))
    with torch.inference_mode():
        probability = model.eval()(NORMALISE(images)).sigmoid()
    expected = smp.metrics.get_stats(probability, masks.long(), mode="binary", threshold=0.5)
    assert int(counts[0].sum()) > 0 and torch.equal(counts.sum(0), torch.full((16, 1), 64 * 64))
    # Another batch size may round a logit near 0 to its other side.
    assert (counts - torch.stack(expected)).abs().max() <= 1


def test_a_loss_that_is_not_finite_names_the_files(photos: tuple[PhotoSet, PhotoSet]) -> None:
    plan = make_plan(*TINY)
    state, loader, _ = build(plan, photos)
    seen = []

    def loss_fn(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        seen.append(masks)
        return BCE.loss_fn(logits, masks) * (float("nan") if len(seen) == 3 else 1)

    with pytest.raises(UserError, match="loss is nan in epoch 1 on") as error:
        engine.train_one_epoch(state, loader, replace(BCE, loss_fn=loss_fn), plan)
    third = [photos[0].path(i).name for i, _ in list(loader.sampler)[4:6]]
    named = [Path(path.strip()).name for path in str(error.value).split(" on ")[1].split(";")[0].split(",")]
    assert named == third


def test_the_last_group_of_batches_may_be_short(
    photos: tuple[PhotoSet, PhotoSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(*TINY, "--max_grad_norm", 0)  # 8 batches in groups of 3, 3 and 2
    state, loader, _ = build(plan, photos)
    weight, gradients = state.model.segmentation_head[0].weight, []
    monkeypatch.setattr(engine, "_step", lambda *_: gradients.append(weight.grad.clone()) or weight.grad.zero_())
    engine.train_one_epoch(state, loader, replace(BCE, loss_fn=lambda logits, _: weight.sum()), plan)
    assert [float(g.mean()) for g in gradients] == pytest.approx([1, 1, 1])


def test_frozen_encoder(photos: tuple[PhotoSet, PhotoSet]) -> None:
    plan = make_plan(*TINY, "--freeze_encoder_epochs", 1)
    state, loader, _ = build(plan, photos)
    changed = []
    for epoch in range(2):
        before = {key: value.clone() for key, value in state.model.state_dict().items()}
        engine.train_one_epoch(state, loader, BCE, plan)
        state.epoch, state.batch = epoch + 1, 0
        after = state.model.state_dict()
        changed.append({key.split(".")[0] for key, value in before.items() if not torch.equal(value, after[key])})
    assert changed == [{"decoder", "segmentation_head"}, {"encoder", "decoder", "segmentation_head"}]


def test_the_largest_seed(photos: tuple[PhotoSet, PhotoSet]) -> None:
    plan = make_plan(*TINY, "--seed", 2**32 - 1, "--epochs", 1)
    state, loader, _ = build(plan, photos)
    engine.train_one_epoch(state, loader, BCE, plan)
    assert state.batch == 8
    state.epoch = 3
    assert engine._dropout_seed(42, state) == (42 * 100_003 + 3) * 1_000_003 + 8, "as ever"


def test_a_teacher_is_half_of_the_target(photos: tuple[PhotoSet, PhotoSet], tmp_path: Path) -> None:
    torch.manual_seed(0)
    runs = [tmp_path / name for name in ("one", "two")]
    networks = [models.build_model("tu-test_efficientnet", decoder).eval() for decoder in ("Unet", "FPN")]
    facts = [{"mean": MEAN_STD[0], "std": MEAN_STD[1]}, {"mean": (0.5,) * 3, "std": (0.5,) * 3}]
    for run, network, fact in zip(runs, networks, facts, strict=True):
        models.save_model(network, run, fact)
    plan = make_plan(*TINY, "--teacher", *runs)
    state, loader, _ = build(plan, photos)
    targets = []

    def loss_fn(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        targets.append(target)
        return BCE.loss_fn(logits, target)

    engine.train_one_epoch(state, loader, replace(BCE, loss_fn=loss_fn), plan)
    loader.go_to(0, 0)
    images, masks, _ = next(iter(loader))
    with torch.no_grad():
        found = [
            network(models.Normalise(**fact)(images)).sigmoid() for network, fact in zip(networks, facts, strict=True)
        ]
    assert len(targets) == len(loader) and state.teacher.training is False
    torch.testing.assert_close(targets[0], masks.float() / 2 + sum(found) / 4)
