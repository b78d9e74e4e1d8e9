"""Encoders and classifiers in onnxruntime: any number of images, of any size."""

import json
import runpy
import sys

import pytest
import torch
from samples import ROOT, hiera_model, tiny_model
from small_run import ENCODERS, SWIN, VIT, classifier, saved

from mim_plugins.evaluation.onnx import METADATA, export_onnx


@pytest.fixture
def runtime():
    pytest.importorskip("onnx")
    return pytest.importorskip("onnxruntime")


def outputs(runtime, path, images):
    session = runtime.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    given = session.run(names, {"image": images.numpy()})
    return dict(zip(names, map(torch.from_numpy, given), strict=True))


def settings(runtime, path):
    session = runtime.InferenceSession(str(path))
    return json.loads(session.get_modelmeta().custom_metadata_map[METADATA])


# Maps of several windows, shifted ones among them, which the other sizes do not divide.
SHIFTED = dict(
    arch=dict(embed_dims=6, depths=(2, 2), num_heads=(1, 2)),
    img_size=48,
    window_size=3,
    out_indices=(1,),
)
MODELS = {
    **{name: model for name, (model, _) in ENCODERS.items() if name != "deit"},
    "shifted": classifier(
        dict(type="GlobalAveragePooling"), type="SwinTransformer", **SHIFTED
    ),
    "padded": classifier(
        dict(type="GlobalAveragePooling"),
        type="SwinTransformer",
        pad_small_map=True,
        **SHIFTED,
    ),
}
# Linear probing: batch norm without parameters on the class token.
MODELS["linear"] = classifier(
    dict(type="ClsBatchNormNeck", input_features=24), type="VisionTransformer", **VIT
)
for name in ("shifted", "padded"):
    MODELS[name]["head"]["in_channels"] = 12


@pytest.mark.parametrize("name", list(MODELS))
def test_classifiers__logits_at_any_number_and_size(tmp_path, runtime, name):
    network, config, checkpoint = saved(MODELS[name], tmp_path / "run")
    path = tmp_path / "x.onnx"
    said = "; ".join(export_onnx(checkpoint, path, config))
    side = 48 if name in ("shifted", "padded") else 32
    sizes = [(side, side), (side + 32, side + 96)]
    if "hiera" not in name:
        sizes.append((side + 13, side + 5))
    if name == "rel pos":
        sizes = sizes[:1]
        assert "size is fixed at 32x32: its tables of relative positions" in said
        with pytest.raises(Exception, match="invalid dimensions"):
            outputs(runtime, path, torch.zeros(1, 3, 64, 64))
    for count, size in ((1, sizes[0]), *((2, size) for size in sizes)):
        images = torch.randn(count, 3, *size)
        with torch.no_grad():
            wanted = network(images, mode="tensor")
        found = outputs(runtime, path, images)
        torch.testing.assert_close(found["logits"], wanted, atol=1e-4, rtol=1e-4)
    assert (name == "hiera") == ("that are multiples of 32;" in said + ";")
    noted = settings(runtime, path)
    assert noted["fixed_size"] == (name == "rel pos")
    assert noted["multiple"] == ([32, 32] if name == "hiera" else [1, 1])
    assert noted["img_size"] == [side, side] and noted["bgr_to_rgb"]
    assert noted["mean"] == pytest.approx([123.675, 116.28, 103.53])


PRETRAINING = {
    "vit": tiny_model(),
    # Decodes an earlier block, so that nothing norms the last one.
    "d2": tiny_model(taps=(), backbone=dict(final_block=1)),
    "hiera": hiera_model(),
}


@pytest.mark.parametrize("name", list(PRETRAINING))
def test_pretraining__features_of_nothing_masked(tmp_path, runtime, name):
    network, _, checkpoint = saved(PRETRAINING[name], tmp_path / "run")
    export_onnx(checkpoint, tmp_path / "x.onnx")  # with the config next to it
    for count, size in ((1, (64, 64)), (3, (96, 32)), (2, (32, 160))):
        images = torch.randn(count, 3, *size)
        with torch.no_grad():
            wanted = network.image_features(images).present
        found = outputs(runtime, tmp_path / "x.onnx", images)
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            torch.testing.assert_close(found[key], value, atol=1e-4, rtol=1e-4)


def test_swin_of_pretraining__official_coordinates_are_refused(tmp_path, runtime):
    model = dict(
        type="LocalMIM",
        mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.5),
        backbone=dict(type="MIMSwinTransformer", **SWIN) | dict(img_size=64),
        neck=dict(type="MultiScaleDecoder", embed_dims=8, num_heads=2),
        target_generator=dict(type="PixelTarget"),
        head=dict(type="ReconstructionHead", criterion="L2"),
    )
    network, _, checkpoint = saved(model, tmp_path / "correct")
    path = tmp_path / "x.onnx"
    export_onnx(checkpoint, path)
    for count, size in ((1, (64, 64)), (3, (64, 128))):
        images = torch.randn(count, 3, *size)
        with torch.no_grad():
            wanted = network.image_features(images).patch
        found = outputs(runtime, path, images)["patch"]
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    model["backbone"]["merge_coordinates"] = "official"
    _, _, checkpoint = saved(model, tmp_path / "official")
    with pytest.raises(ValueError, match="give the model of fine-tuning"):
        export_onnx(checkpoint, path, force=True)


def test_tool__encoder_of_a_classifier(tmp_path, runtime, capsys):
    network, config, checkpoint = saved(ENCODERS["vit"][0], tmp_path / "run")
    main = runpy.run_path(str(ROOT / "tools/convert_checkpoint.py"))["main"]
    path = tmp_path / "x.onnx"
    main([checkpoint, str(path), "--to", "onnx", "--encoder-only"])
    printed = capsys.readouterr().out
    assert "to cls (N, 24), mean (N, 24), patch (N, L, 24)" in printed
    assert "any number of images, of any height and width" in printed
    assert "in onnxruntime within" in printed and f"written to {path}" in printed
    images = torch.randn(2, 3, 40, 32)
    with torch.no_grad():
        wanted = network.extract_feat(images)[-1]
    found = outputs(runtime, path, images)["mean"]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    for options, words in (
        (["--to", "onnx"], "is there already"),
        (["--to", "onnx", "--force", "--part", "teacher"], "--part has no effect"),
        (["--to", "onnx", "--force", "--from", "mae"], "--from has no effect"),
        (["--model", "x.py", "--force"], "--model is of --to onnx"),
    ):
        with pytest.raises(SystemExit, match=words):
            main([checkpoint, str(path), *options])
    with pytest.raises(SystemExit, match=r"name the file \*\.onnx"):
        main([checkpoint, str(tmp_path / "x.pth"), "--to", "onnx"])


def test_model_that_cannot_be_exported__is_a_sentence(tmp_path, runtime, monkeypatch):
    sizes = []

    def graph(module, inputs, *_):
        sizes.append(tuple(inputs[0].shape[2:]))
        raise RuntimeError("Unsupported: an operator\nand a graph of many lines")

    monkeypatch.setattr("mim_plugins.evaluation.onnx.graph_of", graph)
    _, config, checkpoint = saved(ENCODERS["vit"][0], tmp_path / "run")
    with pytest.raises(
        ValueError, match="cannot be exported: Unsupported: an operator$"
    ):
        export_onnx(checkpoint, tmp_path / "x.onnx", config)
    assert sizes == [(48, 40), (32, 32)]  # of any size, then of its own
    assert not (tmp_path / "x.onnx").exists()


def test_tracker__is_sent_to_its_own_export(tmp_path, runtime):
    _, _, checkpoint = saved(tiny_model(), tmp_path / "run")
    (tmp_path / "tracker.py").write_text("model = dict(type='OneStreamTracker')")
    with pytest.raises(ValueError, match="tools/track.py --export-onnx FILE"):
        export_onnx(checkpoint, tmp_path / "x.onnx", str(tmp_path / "tracker.py"))


def test_classifier__needs_its_head(tmp_path, runtime):
    _, _, checkpoint = saved(tiny_model(), tmp_path / "run")
    (tmp_path / "finetune.py").write_text(
        f"model = {classifier(type='MIMVisionTransformer', **VIT)!r}"
    )
    with pytest.raises(ValueError, match="lacks 2 tensors of this classifier, head"):
        export_onnx(checkpoint, tmp_path / "x.onnx", str(tmp_path / "finetune.py"))
    assert not (tmp_path / "x.onnx").exists()


def test_package__is_named_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"mim_plugins\[onnx\]"):
        export_onnx("absent.pth", tmp_path / "x.onnx")


def test_deit__of_two_outputs(tmp_path, runtime):
    model = ENCODERS["deit"][0] | dict(
        head=dict(type="DeiTClsHead", num_classes=3, in_channels=24)
    )
    network, config, checkpoint = saved(model, tmp_path / "run")
    export_onnx(checkpoint, tmp_path / "x.onnx", config)
    images = torch.randn(2, 3, 48, 32)
    with torch.no_grad():
        wanted = network(images, mode="tensor")
    found = outputs(runtime, tmp_path / "x.onnx", images)["logits"]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
