"""ViTDet against mmpretrain's network for segmenting anything, and its loading."""

import copy

import pytest
import torch
from mmengine.logging import MMLogger
from mmpretrain.models import ViTSAM
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, tiny_model
from torch.nn import functional as F

from mim_plugins.checkpoints import to_official
from mim_plugins.checkpoints.files import save_state
from mim_plugins.models import SimpleFeaturePyramid, ViTDet
from mim_plugins.models.backbones.grid_attention import attention_on_grid


def vitdet(**overrides):
    cfg = dict(
        type="ViTDet",
        arch=dict(TINY_ARCH),
        img_size=(40, 64),
        patch_size=8,
        pretrain_img_size=32,
        window_size=3,
    )
    return MODELS.build(cfg | overrides)


def with_random_tables(model):
    for name, parameter in model.named_parameters():
        if "rel_pos" in name or name == "pos_embed":
            torch.nn.init.normal_(parameter)
    return model


@pytest.fixture
def lines(monkeypatch):
    found = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(
        logger, "log", lambda _level, message, *_, **__: found.append(str(message))
    )
    return found


# Square, longer than the tables are made for, and not a multiple of the patch size.
@pytest.mark.parametrize("size", [(40, 64), (64, 64), (72, 24), (37, 61)])
def test_forward__is_the_published_network(size):
    """Windows of 3 patches divide none of the maps: they are padded with zeros."""
    kwargs = dict(img_size=(40, 64), patch_size=8, window_size=3, out_indices=[1, 3])
    model = with_random_tables(
        vitdet(pretrain_img_size=(40, 64), global_blocks=(1, 3), **kwargs)
    )
    model.init_weights()
    reference = ViTSAM(
        arch=TINY_ARCH | dict(global_attn_indexes=[1, 3]), out_channels=0, **kwargs
    )
    state = model.state_dict()
    state["pos_embed"] = state["pos_embed"].view(1, 5, 8, -1)
    reference.load_state_dict(state)
    for network in (model, reference):
        network.eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        for ours, theirs in zip(model(images), reference(images), strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


def test_attention_on_grid__is_attention_with_a_bias_in_value_and_gradient():
    rows, cols, dims = 3, 5, 4
    inputs = [torch.randn(2, 2, rows * cols, dims) for _ in range(3)]
    inputs += [torch.randn(2, 2, rows * cols, side) for side in (rows, cols)]
    for tensor in inputs:
        tensor.requires_grad_()
    query, key, value, row_bias, col_bias = inputs
    bias = (row_bias[..., :, None] + col_bias[..., None, :]).flatten(-2)
    logits = query @ key.transpose(-2, -1) / dims**0.5 + bias
    wanted = logits.softmax(-1) @ value
    found = attention_on_grid(*inputs)
    torch.testing.assert_close(found, wanted)
    weights = torch.randn_like(wanted)
    ours = torch.autograd.grad((found * weights).sum(), inputs)
    theirs = torch.autograd.grad((wanted * weights).sum(), inputs)
    torch.testing.assert_close(ours, theirs)


def test_drop_path__drops_images_not_windows():
    model = vitdet(drop_path_rate=0.9, global_blocks=(3,))
    attn = model.layers[2].attn
    attn.train()
    with torch.no_grad():
        attn.proj.bias.fill_(1.0)
        outputs = attn(torch.randn(40, 5, 8, 24))
    kept = (outputs != 0).flatten(1).float().mean(1)
    assert attn.window
    assert set(kept.tolist()) == {0.0, 1.0}


def test_keys__are_those_of_the_vision_transformer_and_tables_that_start_at_zero():
    model = vitdet()
    plain = MODELS.build(
        dict(type="VisionTransformer", arch=dict(TINY_ARCH), img_size=32, patch_size=8)
    )
    new = set(model.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) - set(model.state_dict()) == {
        "cls_token",
        "ln1.weight",
        "ln1.bias",
    }
    tables = {f"layers.{i}.attn.rel_pos_{axis}" for i in range(4) for axis in "hw"}
    assert new == tables
    model.init_weights()
    state = model.state_dict()
    assert not any(state[key].any() for key in tables)
    # Fewer blocks than windows: the last of every quarter attends globally.
    assert model.global_blocks == (0, 1, 2, 3)
    assert vitdet(arch=TINY_ARCH | dict(num_layers=12)).global_blocks == (2, 5, 8, 11)
    model = vitdet(global_blocks=(1, 3))
    assert len(model.layers[0].attn.rel_pos_h) == 2 * 3 - 1
    assert len(model.layers[1].attn.rel_pos_h) == 2 * 5 - 1
    assert len(model.layers[1].attn.rel_pos_w) == 2 * 8 - 1


@pytest.mark.parametrize("official", [False, True])
def test_pretraining__loads_with_nothing_missing_but_tables(tmp_path, lines, official):
    """A DeepMIM's checkpoint, ours and in the official layout; see the table."""
    pretrained = MODELS.build(tiny_model())
    with torch.no_grad():
        for parameter in pretrained.parameters():
            parameter.copy_(torch.randn_like(parameter))
    path, state = tmp_path / "pretrained.pth", pretrained.state_dict()
    if official:
        save_state(to_official(state)[0], path, wrapper="model")
    else:
        torch.save(dict(state_dict=state, meta={}), path)
    init = dict(type="Pretrained", checkpoint=str(path), prefix="backbone.")
    model = vitdet(init_cfg=init)
    model.init_weights()
    own = model.state_dict()
    for key, value in own.items():
        if "rel_pos" in key:
            assert not value.any(), key
        elif key == "pos_embed":
            assert torch.equal(value, state["backbone.pos_embed"][:, 1:])
        else:
            assert torch.equal(value, state[f"backbone.{key}"]), key
    table = next(line for line in lines if "tensors\n" in line)
    missing = next(row for row in table.splitlines() if row.startswith("  missing"))
    assert "8  layers.* (8): randomly initialised" in missing
    assert "cls_token" in table and "ViTDet has no such part" in table
    rows = [row for row in table.splitlines() if row.startswith("  unexpected")]
    assert rows == ["  unexpected    0"]
    assert not any("unexpected key" in line for line in lines)


def test_pretraining__of_another_image_size_is_resized(tmp_path):
    torch.save(MODELS.build(tiny_model()).state_dict(), tmp_path / "pretrained.pth")
    init = dict(
        type="Pretrained",
        checkpoint=str(tmp_path / "pretrained.pth"),
        prefix="backbone.",
    )
    model = vitdet(pretrain_img_size=48, init_cfg=init)
    model.init_weights()
    state = torch.load(tmp_path / "pretrained.pth")
    old = state["backbone.pos_embed"][:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    wanted = F.interpolate(old, (6, 6), mode="bicubic").flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed.data, wanted)


def test_own_checkpoint__of_another_detector_size_loads():
    small, large = vitdet(img_size=32), vitdet(img_size=64)
    with_random_tables(small)
    large.load_state_dict(small.state_dict())
    old = small.layers[3].attn.rel_pos_h
    wanted = F.interpolate(old.T[None], 15, mode="linear")[0].T
    torch.testing.assert_close(large.layers[3].attn.rel_pos_h, wanted)


def test_pretraining__of_another_architecture_is_refused(tmp_path):
    torch.save(MODELS.build(tiny_model()).state_dict(), tmp_path / "pretrained.pth")
    init = dict(
        type="Pretrained",
        checkpoint=str(tmp_path / "pretrained.pth"),
        prefix="backbone.",
    )
    model = vitdet(arch=TINY_ARCH | dict(num_layers=5), init_cfg=init)
    with pytest.raises(ValueError, match=r"layers\.4\..*are not in it"):
        model.init_weights()


def test_with_cp__changes_neither_output_nor_gradients_and_copies():
    model = with_random_tables(vitdet())
    model.init_weights()
    recomputing = vitdet(with_cp=True)
    recomputing.load_state_dict(model.state_dict())
    images, results = torch.randn(1, 3, 40, 64), []
    for network in (model, recomputing, copy.deepcopy(recomputing)):
        network.train()
        loss = network(images)[0].square().mean()
        grads = torch.autograd.grad(loss, list(network.parameters()))
        results.append([loss, *grads])
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


def test_layer_depth__covers_every_parameter():
    model = vitdet()
    depths = {
        name: model.get_layer_depth(f"backbone.{name}", "backbone.")
        for name, _ in model.named_parameters()
    }
    assert depths["pos_embed"] == depths["patch_embed.projection.bias"] == (0, 6)
    assert depths["layers.2.attn.rel_pos_w"] == (3, 6)
    assert {depth for depth, _ in depths.values()} == set(range(5))
    assert model.get_layer_depth("neck.levels.0.ln.bias", "backbone.") == (5, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(window_size=0), "window_size counts patches"),
        (dict(global_blocks=(1, 4)), r"global_blocks=\(1, 4\) names a block"),
        (dict(out_indices=(4,)), r"out_indices=\(4,\) names a block"),
        (dict(arch=TINY_ARCH | dict(num_layers=3)), "3 blocks have no quarters"),
    ],
)
def test_arguments__that_make_no_vitdet_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        vitdet(**options)


def test_pyramid__has_the_published_scales_and_layers():
    neck = SimpleFeaturePyramid(in_channels=24, out_channels=8)
    maps = neck((torch.randn(1, 24, 5, 8),))
    sizes = [tuple(level.shape) for level in maps]
    assert sizes == [
        (1, 8, 20, 32),
        (1, 8, 10, 16),
        (1, 8, 5, 8),
        (1, 8, 2, 4),
        (1, 8, 1, 2),
    ]
    torch.testing.assert_close(maps[4], maps[3][:, :, ::2, ::2])
    shapes = {key: tuple(x.shape) for key, x in neck.state_dict().items()}
    assert shapes["levels.0.finer2.weight"] == (12, 6, 2, 2)
    assert shapes["levels.0.lateral.conv.weight"] == (8, 6, 1, 1)
    assert shapes["levels.1.lateral.conv.weight"] == (8, 12, 1, 1)
    assert shapes["levels.3.output.conv.weight"] == (8, 8, 3, 3)
    # Norms of all positions' channels, after every convolution, which has no bias.
    assert neck.levels[0].ln.eps == neck.levels[3].output.ln.eps == 1e-6
    assert not any(key.endswith("conv.bias") for key in shapes)
    level = maps[2].permute(0, 2, 3, 1)
    torch.testing.assert_close(level.mean(-1), torch.zeros(1, 5, 8), atol=1e-5, rtol=0)


def test_pyramid__refuses_other_scales_and_too_few_levels():
    with pytest.raises(ValueError, match="scales of a SimpleFeaturePyramid"):
        SimpleFeaturePyramid(in_channels=24, scales=(4, 3))
    with pytest.raises(ValueError, match="num_outs=2 is fewer levels"):
        SimpleFeaturePyramid(in_channels=24, num_outs=2)


def test_registry__knows_both():
    assert MODELS.get("ViTDet") is ViTDet
    assert MODELS.get("SimpleFeaturePyramid") is SimpleFeaturePyramid


@pytest.mark.parametrize("frozen", [1, 4])
def test_frozen_stages__nothing_of_them_is_trained(frozen):
    model = vitdet(frozen_stages=frozen)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    later = tuple(f"layers.{index}." for index in range(frozen, 4))
    assert trained == {n for n, _ in model.named_parameters() if n.startswith(later)}
