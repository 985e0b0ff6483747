"""Weights are found by name, address or path; downloads are verified, and work without a network afterwards."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import evaluate
import export
from hair import HairSegmenter, store
from hair.errors import UserError
from hair.store import TABLE, Weights, find_weights
from tests.conftest import ROOT
from tests.servers import FileServer, Hub, serving

CONTENT = b"not a network, but a file with a hash" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server with one file, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving() as server:
        server.files["/v1/model.onnx"] = CONTENT
        yield server


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------------- names and paths


@pytest.mark.parametrize("name", TABLE)
def test_the_table_describes_the_shipped_files(name: str) -> None:
    """After new weights: their size and hash go into the table."""
    entry = TABLE[name]
    folder = entry.folder()
    assert folder is not None and find_weights(name) == folder
    content = (folder / entry.file).read_bytes()
    assert (entry.size, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert entry.licence == re.findall(r"\*\*Licence: ([^*]*)\.\*\*", (folder / "README.md").read_text())[0]


def test_a_name_is_text_and_a_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wild").mkdir()
    assert find_weights() == find_weights(store.DEFAULT) == store.DEFAULT_WEIGHTS
    assert find_weights(Path("wild")) == find_weights("./wild") == Path("wild")
    with pytest.raises(FileNotFoundError, match=r"^wilde: no such file or folder; hair --list_weights"):
        find_weights("wilde")


def test_in_a_wheel_the_other_weights_say_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    absent = Weights((tmp_path / "none",), "model.safetensors", SHA256, 1, "MIT")
    monkeypatch.setitem(TABLE, "absent", absent)
    assert "repository only" in store.list_weights()
    with pytest.raises(UserError, match="absent: comes with the repository"):
        find_weights("absent")


def test_the_weights_are_listed(cli) -> None:
    result = cli("inference.py", "--list_weights")
    assert result.returncode == 0 and not result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *TABLE]
    assert lines[1].endswith(str(TABLE["wild"].folder()))


def test_scripts_take_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["export.py", "--weights", "hf://owner/name"])
    with pytest.raises(UserError, match="--output FILE"):
        export.main()
    monkeypatch.setattr(sys, "argv", ["export.py", "--weights", "celeb", "--format", "openvino", "--output", "a.onnx"])
    with pytest.raises(UserError, match=r"writes \.xml"):
        export.main()
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--data_dir", "none", "--weights", "nobody"])
    with pytest.raises(FileNotFoundError, match="nobody: no such file"):
        evaluate.main()


# ---------------------------------------------------------------------------------------------------- addresses


def test_a_download_is_made_once_and_runs(
    server: FileServer, weights: Path, head: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pooch")
    content = (weights / "model.onnx").read_bytes()
    server.files["/model.onnx"] = content
    sha256 = hashlib.sha256(content).hexdigest()
    address = f"{server.address}/model.onnx"
    monkeypatch.setitem(TABLE, "remote", Weights((), "model.onnx", sha256, len(content), "MIT", address))
    expected = HairSegmenter(weights / "model.onnx", "onnx")(head)
    for name in (f"{address}#sha256={sha256}", "remote", "remote"):
        np.testing.assert_array_equal(HairSegmenter(name, "onnx")(head), expected)
        server.shutdown()  # what is in the cache needs no network
    assert server.requests == ["GET /model.onnx"]
    assert address in store.list_weights()


def test_a_damaged_file_in_the_cache_is_downloaded_again(server: FileServer) -> None:
    pytest.importorskip("pooch")
    address = f"{server.address}/v1/model.onnx#sha256={SHA256.upper()}"
    path = find_weights(address)
    path.write_bytes(CONTENT[:100])
    assert find_weights(address) == path and path.read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/model.onnx", "add #sha256="),
        ("/v1/model.onnx#sha256=1234", "add #sha256="),
        (f"/v1/model.onnx#sha256={'0' * 64}", "is not the file that sha256 says"),
        (f"/v2/model.onnx#sha256={SHA256}", "cannot be downloaded (404"),
        (f"/v1/model.torchscript#sha256={SHA256}", "only .onnx files"),
    ],
)
def test_what_cannot_be_downloaded_is_one_line_and_leaves_nothing(
    server: FileServer, tmp_path: Path, path: str, message: str
) -> None:
    pytest.importorskip("pooch")
    with pytest.raises(UserError) as error:
        find_weights(server.address + path)
    text = str(error.value)
    assert text.startswith(server.address + path.partition("#")[0]) and message in text and "\n" not in text
    assert not files_below(tmp_path / "cache")


def test_without_a_network_or_pooch_one_line_says_so(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{server.address}/v1/model.onnx#sha256={SHA256}"
    if "pooch" not in sys.modules:
        pytest.importorskip("pooch")
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"cannot be downloaded \(.*refused") as error:
        find_weights(address)
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(UserError, match="pip install pooch"):
        find_weights(address)


# ---------------------------------------------------------------------------------------------------- Hugging Face hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """An empty hub; `constants` are what HF_ENDPOINT, HF_TOKEN and HF_HOME would set before the library is imported."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    with serving(Hub) as server:
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_TOKEN", "secret")
        yield server


def test_a_run_folder_goes_to_the_hub_and_comes_back(
    hub: FileServer, weights: Path, head: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    from tools.push import push

    run = tmp_path / "run"
    run.mkdir()
    for file in weights.iterdir():
        (run / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"no README\.md; write a model card"):
        push(run, "me/hair")
    (run / "README.md").write_text("---\nlicense: mit\n---\n\n# A model card\n")
    (run / "last.pth").write_bytes(b"large, and a pickle")
    assert push(run, "me/hair", private=True) == f"{hub.address}/me/hair"
    uploaded = {"README.md", "config.json", "model.onnx", "model.safetensors"}
    assert {path.removeprefix("/me/hair/") for path in hub.files} == uploaded
    hub.files["/me/hair/other.pth"] = b"somebody's"

    folder = find_weights("hf://me/hair")
    assert {path.name for path in folder.iterdir()} == uploaded
    expected = HairSegmenter(weights, "onnx")(head)
    for backend in ("onnx", "torch"):
        np.testing.assert_allclose(HairSegmenter("hf://me/hair@main", backend)(head), expected, atol=1e-4)
    assert type(smp.from_pretrained("me/hair", encoder_weights=None)).__name__ == "Unet"

    hub.shutdown()
    hub.server_close()
    assert find_weights("hf://me/hair") == folder
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        find_weights("hf://me/hair")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://me", "write hf://owner/name"),
        ("hf://me/my hair", "write hf://owner/name"),
        ("hf://me/nothing", "not found; a private repository needs hf auth login"),
        ("hf://me/text", "contains neither model.safetensors nor model.onnx"),
    ],
)
def test_what_is_not_on_the_hub_is_one_line(hub: FileServer, address: str, message: str) -> None:
    hub.files["/me/text/README.md"] = b"no weights"
    with pytest.raises(UserError) as error:
        find_weights(address)
    assert str(error.value).startswith(address) and message in str(error.value) and "\n" not in str(error.value)


def test_an_upload_without_rights_says_how_to_log_in(
    hub: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tools.push import push

    with pytest.raises(UserError, match=r"no config\.json"):
        push(tmp_path, "me/hair")
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(UserError, match="hf auth login") as error:
        push(tmp_path, "me/hair")
    assert "\n" not in str(error.value) and not hub.files


@pytest.mark.slow
def test_the_variables_of_the_hub_choose_server_token_and_cache(weights: Path, tmp_path: Path) -> None:
    """Each command in a process of its own, as a user runs them."""
    pytest.importorskip("huggingface_hub")
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "model.safetensors", "model.onnx"):
        (run / name).write_bytes((weights / name).read_bytes())
    (run / "README.md").write_text("# A model card\n")
    find = ["inference.py", str(ROOT / "demo" / "1.jpg"), "--save", "mask", "--backend", "onnx", "--weights"]
    with serving(Hub) as server:
        env = os.environ | {"HF_ENDPOINT": server.address, "HF_TOKEN": "secret", "HF_HOME": str(tmp_path / "hub")}

        def command(*words: str) -> None:
            subprocess.run([sys.executable, *words], cwd=ROOT, env=env, check=True)

        command("-m", "tools.push", str(run), "me/hair")
        for folder, name in (("plain", str(weights)), ("pulled", "hf://me/hair")):
            command(*find, name, "--output_dir", str(tmp_path / folder))
        server.shutdown()
        server.server_close()
        command(*find, "hf://me/hair", "--output_dir", str(tmp_path / "again"))
    masks = [(tmp_path / folder / "1_mask.png").read_bytes() for folder in ("plain", "pulled", "again")]
    assert masks[0] == masks[1] == masks[2]
