"""Addresses give checkpoints as files do: checked, and no code is run."""

import hashlib
import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mmpretrain
import pytest
import torch
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, tiny_model

from mim_plugins.checkpoints import read, to_official
from mim_plugins.checkpoints.files import local_files, save_state
from mim_plugins.checkpoints.loading import Target, state_for

NAME = "localmim_vitb-hog_1600e"
FILE = "vit_base_localmim_hog_1600ep_pretrain.pth"


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        self.server.asked.append(self.path)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder and the address it is served at; downloads go beside it."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.asked = []
        http.address = f"http://127.0.0.1:{http.server_port}"
        http.folder = folder
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http
        http.shutdown()


def random_model(**kwargs):
    model = MODELS.build(tiny_model(**kwargs))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def test_address__is_downloaded_once_and_converted(server, tmp_path):
    trained = random_model()
    save_state(
        to_official(trained.state_dict())[0], server.folder / FILE, wrapper="model"
    )
    for _ in range(2):
        model = random_model()
        checkpoint = read(f"{server.address}/{FILE}")
        model.load_state_dict(state_for(Target.of(model), checkpoint))
        own = model.state_dict()
        assert all(torch.equal(own[k], x) for k, x in trained.state_dict().items())
    assert server.asked == [f"/{FILE}"]
    assert (tmp_path / "hub" / "checkpoints" / FILE).is_file()


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_address__a_file_with_code_is_refused_and_not_run(server, tmp_path):
    witness = tmp_path / "code was run"
    (server.folder / FILE).write_bytes(pickle.dumps({"model": Payload(witness)}))
    with pytest.raises(ValueError, match=FILE):
        read(f"{server.address}/{FILE}")
    assert not witness.exists()


def small_localmim(**options):
    arch = dict(TINY_ARCH, num_layers=12, _delete_=True)
    return mmpretrain.get_model(
        NAME,
        backbone=dict(arch=arch, img_size=32, patch_size=8),
        neck=dict(embed_dims=16, num_heads=2),
        **options,
    )


@pytest.fixture
def released(server, monkeypatch):
    """The entry of a released model, whose file is a small one on our server."""
    trained = small_localmim()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.copy_(torch.randn_like(parameter))
    path = server.folder / FILE
    save_state(to_official(trained.state_dict())[0], path, wrapper="model")
    entry = ModelHub._models_dict[NAME]
    assert entry.weights.endswith(FILE)
    monkeypatch.setitem(entry.data, "Weights", f"{server.address}/{FILE}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return entry, digest, trained.state_dict()


def test_pretrained_true__gives_the_released_weights(released):
    _, _, wanted = released
    own = small_localmim(pretrained=True).state_dict()
    assert all(torch.equal(own[key], wanted[key]) for key in wanted)


def test_digest__is_checked_where_the_index_has_one(released, monkeypatch, tmp_path):
    entry, digest, _ = released
    monkeypatch.setitem(entry.metadata.data, "SHA-256", digest.upper())
    path = local_files.fetch(entry.weights, tmp_path)
    monkeypatch.setitem(entry.metadata.data, "SHA-256", "0" * 64)
    with pytest.raises(ValueError, match=f"{path}.*SHA-256 is {digest}, not 0000"):
        local_files.fetch(entry.weights, tmp_path)
    with pytest.raises(ValueError, match="not the file that the model index names"):
        read(entry.weights)


WEIGHTS = {"w": torch.ones(2)}


def served(server, name, content=None):
    """The address of a file and its digest."""
    path = server.folder / name
    if content is None:
        torch.save(WEIGHTS, path)
    else:
        path.write_bytes(content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{server.address}/{name}", digest


def test_address__that_ends_in_the_digest_is_checked(server, tmp_path):
    url, digest = served(server, "x.pth")
    file = f"file://{server.folder}/x.pth"
    cached = tmp_path / "hub" / "checkpoints" / "x.pth"
    for address in (url, file):
        checkpoint = read(f"{address}#sha256={digest}")
        assert torch.equal(checkpoint.tensors["w"], WEIGHTS["w"])
        with pytest.raises(ValueError, match=rf"x.pth.* is {digest}, not 0000"):
            read(f"{address}#sha256={'0' * 64}")
        with pytest.raises(ValueError, match="a SHA-256 has 64 hexadecimal digits"):
            read(f"{address}#sha256=0a1b")
    assert cached.exists()  # it was there before
    assert read(file).tensors.keys() == WEIGHTS.keys()


def test_address__a_wrong_file_does_not_stay(server, tmp_path):
    url, _ = served(server, "x.pth")
    with pytest.raises(ValueError, match="is not the file that its address names"):
        read(f"{url}#sha256={'0' * 64}")
    page, _ = served(server, "page.pth", b"<!DOCTYPE html><html>sign in</html>")
    with pytest.raises(ValueError, match=r"page\.pth .* it is a web page"):
        read(page)
    assert not list((tmp_path / "hub" / "checkpoints").iterdir())
    with pytest.raises(ValueError, match=r"none\.pth cannot be downloaded: .*404"):
        read(f"{server.address}/none.pth")


def test_name_with_digits_of_another_digest__is_warned_of(server, monkeypatch):
    lines = []
    monkeypatch.setattr(
        local_files, "print_log", lambda message, **_: lines.append(message)
    )
    _, digest = served(server, "x.pth")
    for number, name in enumerate(
        (f"x-{digest[:8]}.pth", "x-20240131.pth", "x-0a1b2c3d.pth")
    ):
        url, _ = served(server, name, (server.folder / "x.pth").read_bytes())
        assert read(url).tensors.keys() == WEIGHTS.keys()
        assert len(lines) == (number == 2)
    assert f"its SHA-256 is {digest}, not 0a1b2c3d" in lines[0]


def test_address_of_another_kind__is_mmengine_s(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    torch.save(WEIGHTS, path)
    listed = {"resnet": path.as_uri(), "ours": str(path)}
    monkeypatch.setattr(
        "mmengine.runner.checkpoint.get_external_models", lambda: listed
    )
    found = read("open-mmlab://ours").tensors
    assert torch.equal(found["w"], WEIGHTS["w"])
