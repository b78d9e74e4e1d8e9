"""Checkpoints of ours say how many heads they have; other models refuse them."""

import re

import mmpretrain
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import get_state_dict, save_checkpoint, weights_to_cpu
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, hiera_model, tiny_model

from mim_plugins.checkpoints import convert_file
from mim_plugins.checkpoints.files import Checkpoint
from mim_plugins.evaluation.encoder import load_encoder
from mim_plugins.models.targets.teacher import load_teacher

FOUR = dict(TINY_ARCH, num_heads=4)
TWO = dict(TINY_ARCH, num_heads=2)
VIT = dict(img_size=32, patch_size=8)
REFUSED = "was trained with 4 attention heads, the model has 2"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a run with four heads leaves, as mmengine's Runner saves it."""
    path = tmp_path_factory.mktemp("run") / "epoch_1.pth"
    model = MODELS.build(tiny_model(backbone=dict(arch=FOUR)))
    state = weights_to_cpu(get_state_dict(model))
    save_checkpoint({"meta": {}, "state_dict": state}, str(path))
    return path


@pytest.fixture(scope="module", params=[".pth", ".safetensors", "encoder", "compiled"])
def saved(run, request):
    """The same in the other forms it may be given in."""
    if request.param == ".pth":
        return run
    path = run.with_name(f"{request.param.strip('.')}.pth")
    if request.param == ".safetensors":
        convert_file(run, path := path.with_suffix(".safetensors"))
    elif request.param == "encoder":
        encoder = MODELS.build(dict(type="MIMVisionTransformer", arch=FOUR, **VIT))
        torch.save(encoder.state_dict(), path)
    else:
        model = MODELS.build(tiny_model(backbone=dict(arch=FOUR)))
        torch.save({"state_dict": torch.compile(model).state_dict()}, path)
    return path


def classifier(**backbone):
    return dict(
        type="MIMImageClassifier",
        backbone=dict(type="VisionTransformer", arch=TWO, **VIT) | backbone,
        head=dict(type="LinearClsHead", num_classes=5, in_channels=24),
    )


def by_init_cfg(path, **prefix):
    init_cfg = dict(type="Pretrained", checkpoint=str(path), **prefix)
    MODELS.build(classifier(init_cfg=init_cfg)["backbone"]).init_weights()


def by_name(path):
    config = Config(dict(model=classifier(), data_preprocessor={}))
    mmpretrain.get_model(config, pretrained=str(path))


def by_extractor(path):
    config = Config(dict(model=tiny_model(), data_preprocessor={}))
    mmpretrain.FeatureExtractor(config, pretrained=str(path))


def for_embedding(path):
    config = path.with_name("two.py")
    config.write_text(f"model = {tiny_model(backbone=dict(arch=TWO))!r}\n")
    load_encoder(str(config), str(path))


WAYS = {
    "load_checkpoint": lambda path: load_checkpoint(
        MODELS.build(classifier()), str(path)
    ),
    "init_cfg": by_init_cfg,
    "get_model": by_name,
    "FeatureExtractor": by_extractor,
    "embed": for_embedding,
    "teacher": lambda path: load_teacher(
        MODELS.build(tiny_model(backbone=dict(arch=TWO))), path, "x", "y"
    ),
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_other_heads__are_refused_by_name_on_every_way(saved, way):
    by_mmengine = way in ("load_checkpoint", "get_model", "FeatureExtractor")
    name = "the checkpoint" if by_mmengine else saved.name
    if by_mmengine and saved.suffix == ".safetensors":
        saved = saved.with_name("epoch_1.pth")  # mmengine reads files of torch alone
    with pytest.raises(ValueError, match=f"{name} {REFUSED}"):
        WAYS[way](saved)


def test_prefix__tells_whose_heads_count(run):
    with pytest.raises(ValueError, match=REFUSED):
        by_init_cfg(run, prefix="backbone.")
    content = torch.load(run, weights_only=True)
    state = content["state_dict"]
    for key in [key for key in state if key.startswith("backbone.")]:
        state[f"teacher.{key[9:]}"] = state[key]
    state._metadata["teacher"] = {"num_heads": 2}
    torch.save(content, run.with_name("two_in_one.pth"))
    by_init_cfg(run.with_name("two_in_one.pth"), prefix="teacher.")


def test_export_to_transformers__needs_no_word_on_heads(run, tmp_path):
    convert_file(run, tmp_path / "hf", to="hf")
    text = (tmp_path / "hf" / "config.json").read_text()
    assert re.search('"num_attention_heads": 4', text)
    with pytest.raises(ValueError, match="was trained with 4 attention heads"):
        convert_file(run, tmp_path / "two", to="hf", num_heads=2)


def test_same_heads__load(run):
    model = MODELS.build(classifier(arch=FOUR))
    load_checkpoint(model, str(run))
    state = torch.load(run, weights_only=True)["state_dict"]
    assert torch.equal(model.backbone.cls_token, state["backbone.cls_token"])


def test_average_of_weights__keeps_the_note(run):
    model = MODELS.build(tiny_model(backbone=dict(arch=FOUR)))
    hook = EMAHook()
    hook.before_run(type("Runner", (), {"model": model})())
    checkpoint = {"state_dict": weights_to_cpu(get_state_dict(model))}
    hook.before_save_checkpoint(None, checkpoint)
    assert Checkpoint.of(checkpoint).num_heads() == 4
    average = {"state_dict": checkpoint["ema_state_dict"]}
    assert Checkpoint.of(average).num_heads() == 4


REL_POS = dict(type="RelPosVisionTransformer", arch=FOUR, **VIT)
DETECTOR = dict(type="ViTDet", arch=FOUR, img_size=32, patch_size=8)


@pytest.mark.parametrize(
    ("model", "heads"),
    [(REL_POS, 4), (DETECTOR | dict(pretrain_img_size=32), 4), (hiera_model(), 1)],
)
def test_every_encoder_of_ours__notes_its_heads(model, heads):
    state = MODELS.build(model).state_dict()
    assert Checkpoint.of(state).num_heads() == heads
