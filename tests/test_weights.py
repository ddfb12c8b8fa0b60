import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from one_pixel import as_kept
from torch import Tensor, nn

from fmnist_models.data import data_root
from fmnist_models.errors import WeightsError
from fmnist_models.networks import build_network
from fmnist_models.synthetic import draw_garments
from fmnist_models.weights import apply_pretrained, imagenet_available, load_pretrained

# torch warns of pickles that it did not write, before it refuses them.
ODD_PICKLE = pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")


@pytest.fixture(scope="module")
def cifar_weights() -> Path:
    """An RGB ResNet-18 trained on CIFAR-10."""
    path = data_root() / "pretrained" / "resnet18-cifar10.pth"
    if not path.is_file():
        pytest.skip(f"no pretrained weights at {path}")
    return path


@pytest.fixture(scope="module")
def original(cifar_weights: Path) -> nn.Module:
    """torchvision's RGB network with those weights, without its classifier."""
    network = torchvision.models.resnet18(num_classes=10)
    network.load_state_dict(torch.load(cifar_weights, weights_only=True))
    network.fc = nn.Identity()
    return network.eval()


def test_loading_gives_everything_but_the_classifier(cifar_weights: Path) -> None:
    state = load_pretrained(str(cifar_weights))
    stored: dict[str, Tensor] = torch.load(cifar_weights, weights_only=True)
    assert state is not None
    assert set(stored) - set(state) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(tensor, stored[name]) for name, tensor in state.items())


def test_none_loads_nothing() -> None:
    assert load_pretrained("none") is None


def test_a_summed_stem_answers_grey_images_as_the_original_answers_them_in_rgb(
    cifar_weights: Path, original: nn.Module
) -> None:
    state = load_pretrained(str(cifar_weights))
    assert state is not None
    ours = build_network("resnet18", {})
    apply_pretrained(ours, state, stem_init="sum")
    ours.fc = nn.Identity()
    grey = torch.from_numpy(draw_garments(16, seed=0)[0]).unsqueeze(1).float() / 90 - 0.8
    with torch.inference_mode():
        features, expected = ours.eval()(grey), original(grey.repeat(1, 3, 1, 1))
    assert features.shape == (16, 512)
    assert expected.std() > 0.1
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_a_random_stem_and_the_classifier_stay_fresh_and_all_else_is_pretrained(cifar_weights: Path) -> None:
    state = load_pretrained(str(cifar_weights))
    assert state is not None
    model = build_network("resnet18", {})
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    apply_pretrained(model, state, stem_init="random")
    for name, tensor in model.state_dict().items():
        kept = name in ("conv1.weight", "fc.weight", "fc.bias")
        assert torch.equal(tensor, fresh[name] if kept else as_kept(name, state[name])), name


@pytest.mark.parametrize("stem_init", ["random", "sum"])
def test_a_small_stem_stays_fresh_and_one_on_large_images_is_the_original(cifar_weights: Path, stem_init: str) -> None:
    state = load_pretrained(str(cifar_weights))
    assert state is not None
    small, large = (build_network("resnet18", chosen) for chosen in ({"stem": "small"}, {"input_size": 227}))
    fresh = small.get_parameter("conv1.weight").clone()
    for model in (small, large):
        apply_pretrained(model, state, stem_init=stem_init)
        assert torch.equal(model.get_parameter("layer1.0.conv1.weight"), state["layer1.0.conv1.weight"])
    assert torch.equal(small.get_parameter("conv1.weight"), fresh)
    is_summed = torch.equal(large.get_parameter("conv1.weight"), state["conv1.weight"].sum(dim=1, keepdim=True))
    assert is_summed == (stem_init == "sum")


def test_the_users_home_is_found(cifar_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.pth").symlink_to(cifar_weights.absolute())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_pretrained("~/mine.pth") is not None


# What is refused, always with the path


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        load_pretrained(str(path))
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "no weights file" in refused(tmp_path / "nowhere.pth")
    assert "no weights file" in refused(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "epoch,loss\n1,2.3\n", "version https://git-lfs.github.com/spec/v1\n", "the weights\n", "<html>", "G", "."],
)
def test_a_text_file_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_text(content)
    refused(tmp_path / "weights.pth")


@ODD_PICKLE
@settings(deadline=None, max_examples=100)
@given(content=st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(lambda tail: b"\x80\x02" + tail)))
def test_any_other_bytes_are_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pth"
    path.write_bytes(content)
    refused(path)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sparse.pth"
    path.write_bytes(b"\x80\x02X" + (2 * 10**9).to_bytes(4, "little"))  # a text of two gigabytes follows
    os.truncate(path, 3 * 2**30)
    assert "more than 268,435,456" in refused(path)


def test_a_compressed_file_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.pth", tmp_path / "small.pth"
    torch.save({"conv1.weight": torch.zeros(10**6)}, plain)
    with zipfile.ZipFile(plain) as entries, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        for entry in entries.infolist():
            small.writestr(entry.filename, entries.read(entry))
    assert path.stat().st_size < 10**4
    assert "compressed" in refused(path)


@pytest.mark.parametrize("name", ["/dev/zero", "pipe"])
def test_a_device_and_a_pipe_are_refused_and_not_read(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no weights file" in refused(tmp_path / name)


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(kept: float, tmp_path: Path) -> None:
    path = tmp_path / "short.pth"
    torch.save(build_network("customnet", {}).state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    refused(path)


def test_another_networks_weights_are_refused_by_the_first_tensor_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "customnet.pth"
    torch.save(build_network("customnet", {}).state_dict(), path)
    assert "expected conv1.weight of shape (64, 3, 7, 7), found no such tensor" in refused(path)
    torch.save(build_network("resnet18", {}).state_dict(), path)
    assert "expected conv1.weight of shape (64, 3, 7, 7), found one of shape (64, 1, 7, 7)" in refused(path)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), {"conv1.weight": "text"}, {"model": {}}])
def test_what_is_no_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    refused(tmp_path / "other.pth")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@ODD_PICKLE
@pytest.mark.parametrize("layout", ["torch", "pickle"])
def test_code_in_a_file_is_not_run(layout: str, tmp_path: Path) -> None:
    path, crater = tmp_path / "bomb.pth", tmp_path / "crater"
    if layout == "torch":
        torch.save({"conv1.weight": Bomb(crater)}, path)
    else:
        path.write_bytes(pickle.dumps({"conv1.weight": Bomb(crater)}))
    assert "weights_only" not in refused(path)  # torch's advice, by which it would run
    assert not crater.exists()
    pickle.loads(pickle.dumps(Bomb(crater)))
    assert crater.exists()  # the bomb was live


def test_imagenet_out_of_reach_is_an_error_that_says_what_else_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # the discard port: nobody listens
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(WeightsError, match="nor downloadable") as caught:
        load_pretrained("imagenet")
    assert str(tmp_path) in str(caught.value)
    assert "weights: none" in str(caught.value)
    assert not imagenet_available()
