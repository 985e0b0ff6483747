"""What a run starts from."""

import copy
from pathlib import Path

import pytest
import torch

import models
from hair.errors import UserError
from tests.scripts import TINY
from tests.training.states import CPU, build_state, make_plan
from training import setup
from training.engine import autocast
from training.report import print_start


def test_training_starts_from_weights_and_their_architecture(tmp_path: Path) -> None:
    model = models.build_model("timm-efficientnet-b0", "Unet", None, [32, 24, 16, 16, 8])
    facts = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "img_size": 64, "threshold": 0.5}
    models.save_model(model, tmp_path, facts)
    plan = make_plan("--weights", tmp_path)
    assert plan.img_size == [64]
    assert plan.encoder_type == "timm-efficientnet-b0"
    state, own = setup.build_state(plan, CPU, 16)
    assert (own["mean"], own["std"]) == (facts["mean"], facts["std"])
    for key, value in model.state_dict().items():
        assert torch.equal(value, state.model.state_dict()[key])
    with pytest.raises(UserError, match="another network"):
        build_state(make_plan("--weights", tmp_path, "--decoder_channels", 64, 32, 16, 16, 8))
    with pytest.raises(UserError, match="name the folder of a run"):
        make_plan("--weights", tmp_path / "nothing")


def test_a_batch_of_more_photos_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match="--batch_size 32 is more than the photos to train on"):
        build_state(make_plan(*TINY, "--batch_size", 32), photos=16)


def test_depthwise_convolutions_stay_out_of_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    torch.manual_seed(0)
    model = models.build_model("timm-tf_efficientnet_lite0", "Unet", None).eval()
    images = torch.rand(1, 3, 64, 64)
    exact = model(images)
    setup.depthwise_in_float32(model)
    average = copy.deepcopy(model)  # as the EMA copies it: the copy must compute with its own weights
    types = {True: set(), False: set()}
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            depthwise = module.groups == module.in_channels
            module.register_forward_hook(lambda _, __, out, depthwise=depthwise: types[depthwise].add(out.dtype))
    with autocast(CPU, True):
        logits = model(images).float()
    assert types == {True: {torch.float32}, False: {torch.bfloat16}}
    assert (logits - exact).std() < 0.1 * exact.std()
    for parameter in model.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(average(images), exact)


def test_mixed_precision_on_a_cpu_without_bf16_is_float32(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    plan = make_plan(*TINY, "--apex")
    state = build_state(plan)
    assert not state.scaler.is_enabled()
    assert all("forward" not in vars(module) for module in state.model.modules()), "convolutions as they were"
    with autocast(CPU, True):
        assert state.model.eval()(torch.rand(1, 3, 64, 64)).dtype == torch.float32
    print_start(plan, Path("run"), state, CPU, (16, 4))
    lines = [line for line in capsys.readouterr().out.splitlines() if "no bf16 instructions" in line]
    assert len(lines) == 1 and lines[0].startswith("--apex: float32, because")
    print_start(make_plan(*TINY), Path("run"), state, CPU, (16, 4))
    assert "bf16" not in capsys.readouterr().out
