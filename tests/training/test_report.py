"""What a run reports."""

import segmentation_models_pytorch as smp
import torch

import models
from dataset import HairDataset, PhotoSet, build_loader
from tests.training.states import BCE, MEAN_STD, NORMALISE
from training import engine, report
from training.augment import eval_transform


def test_worst_photos_are_pictured(photos: tuple[PhotoSet, PhotoSet]) -> None:
    dataset = HairDataset(photos[0], eval_transform(64))
    model = models.build_model("tu-test_efficientnet", "Unet").eval()
    _, counts = engine.evaluate(model, build_loader(dataset, 8, 0), BCE)
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
