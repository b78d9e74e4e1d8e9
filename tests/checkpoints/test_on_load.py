"""Official files load as they are, on every way a config has, or are refused."""

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, hiera_model, tiny_model

from mim_plugins.checkpoints import convert_file, read, to_official
from mim_plugins.checkpoints.files import save_state
from mim_plugins.checkpoints.loading import Target, state_for
from mim_plugins.engine.resuming.same_batch import SameBatchHook


@pytest.fixture
def log(monkeypatch):
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(
        logger, "log", lambda _level, message, *_, **__: lines.append(str(message))
    )
    return lines


def load_checkpoint(model, path):
    """As the hook and the initialiser do."""
    state = state_for(Target.of(model), read(path))
    model.load_state_dict(state, strict=False)


def random_model(cfg):
    model = MODELS.build(cfg)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


@pytest.fixture
def official(tmp_path):
    """A DeepMIM of ours as an official file, and its tensors."""
    model = random_model(tiny_model())
    path = tmp_path / "official.pth"
    save_state(to_official(model.state_dict())[0], path, wrapper="model")
    return str(path), model.state_dict()


def vit(**overrides):
    cfg = dict(
        type="VisionTransformer",
        arch=dict(TINY_ARCH),
        img_size=32,
        patch_size=8,
        out_type="featmap",
    )
    return cfg | overrides


def classifier(**backbone):
    return dict(
        type="ImageClassifier",
        backbone=vit(out_type="avg_featmap", final_norm=False) | backbone,
        head=dict(type="LinearClsHead", num_classes=5, in_channels=24),
    )


def pretrained(path, **options):
    return dict(type="Pretrained", checkpoint=path, **options)


def encoder_of(model, names=("layers", "patch_embed", "cls_token", "pos_embed")):
    backbone = getattr(model, "backbone", model)
    return {k: x for k, x in backbone.state_dict().items() if k.startswith(names)}


def holds(model, state):
    own = encoder_of(model)
    assert own
    return all(torch.equal(own[key], state[f"backbone.{key}"]) for key in own)


@pytest.mark.parametrize("prefix", [dict(), dict(prefix="backbone.")])
def test_init_cfg_of_a_backbone__with_the_prefix_of_our_layout_or_without(
    official, log, prefix
):
    path, state = official
    model = MODELS.build(classifier(init_cfg=pretrained(path, **prefix)))
    model.init_weights()
    assert holds(model, state)
    (table,) = (line for line in log if "converted on load" in line)
    assert f"{path}: DeepMIM's official layout" in table
    assert (
        "ln2" in table
        and "randomly initialised" in table
        and "no part of an enc" in table
    )


@pytest.mark.parametrize("kind", ["VisionTransformer", "ViTDet"])
@pytest.mark.parametrize("others", [{}, {"neck.mask_token": torch.zeros(1, 1, 16)}])
def test_own_checkpoint__needs_no_prefix_of_the_encoder_s_keys(tmp_path, kind, others):
    """All begin with ``backbone.``, or those of the encoder among others."""
    source = MODELS.build(tiny_model())
    state = {k: v for k, v in source.state_dict().items() if k.startswith("backbone.")}
    path = tmp_path / "epoch_1.pth"
    torch.save(dict(state_dict=state | others, meta={}), path)
    encoder = dict(type=kind, arch=TINY_ARCH, img_size=32, patch_size=8)
    if kind == "ViTDet":
        encoder["pretrain_img_size"] = 32
    model = MODELS.build(encoder | dict(init_cfg=pretrained(path)))
    model.init_weights()
    for key, value in model.state_dict().items():
        if key.startswith("layers.") and "rel_pos" not in key:
            assert torch.equal(value, state[f"backbone.{key}"]), key


def test_load_from__of_a_whole_model_and_of_a_classifier(official, log):
    path, state = official
    model = MODELS.build(tiny_model())
    load_checkpoint(model, path)
    own = model.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in state)
    classified = MODELS.build(classifier())
    load_checkpoint(classified, path)
    assert holds(classified, state)
    assert not any("do not match exactly" in line for line in log[:1])


def test_algorithm_level_init_cfg(official):
    path, state = official
    model = MODELS.build(tiny_model() | dict(init_cfg=pretrained(path)))
    model.init_weights()
    own = model.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in state)


@pytest.mark.parametrize("package", ["mmdet", "mmseg"])
def test_detectors_and_segmentors__load_it_from_their_configs(official, package):
    """As their configs name the backbone, and as `load_from` of the whole model."""
    if package == "mmdet":
        pytest.importorskip("mmdet.models")
        from mmdet.registry import MODELS as REGISTRY
    else:
        pytest.importorskip("mmseg.models")
        from mmseg.registry import MODELS as REGISTRY
    path, state = official
    cfg = vit(type="mmpretrain.VisionTransformer", init_cfg=pretrained(path))
    with_prefix = cfg | dict(init_cfg=pretrained(path, prefix="backbone."))
    for backbone in (cfg, with_prefix):
        model = REGISTRY.build(backbone)
        model.init_weights()
        assert holds(model, state)
    if package == "mmseg":
        head = dict(
            type="FCNHead", in_channels=24, channels=4, num_classes=2, num_convs=1
        )
        # As a runner would, whatever scope the process was in before.
        with DefaultScope.overwrite_default_scope("mmseg"):
            segmentor = REGISTRY.build(
                dict(
                    type="EncoderDecoder",
                    backbone=cfg | dict(init_cfg=None),
                    decode_head=head | dict(in_index=0, norm_cfg=dict(type="BN")),
                )
            )
        load_checkpoint(segmentor, path)
        assert holds(segmentor, state)


def test_run__goes_on_from_an_official_file_and_resumes_its_own(tmp_path, official):
    """`load_from` converts; what the run saves is ours and is resumed as it is."""
    from mmengine.runner import Runner

    path, state = official
    model = MODELS.build(tiny_model())
    runner = Runner(
        model=model,
        work_dir=str(tmp_path / "work"),
        load_from=path,
        log_level="ERROR",
        experiment_name="on_load",
        default_scope="mmpretrain",
        custom_hooks=[dict(type="ConvertCheckpointHook")],
    )
    runner.load_or_resume()
    assert torch.equal(
        model.state_dict()["neck.decoders.0.mask_token"],
        state["neck.decoders.0.mask_token"],
    )


@pytest.mark.parametrize("to", ["mmpretrain", "timm"])
def test_run__refuses_an_encoder_without_the_decoders_it_trains(
    tmp_path, official, log, to
):
    """Features and `init_cfg` need no decoders."""
    from mmengine.runner import Runner

    path = str(tmp_path / "encoder.pth")
    convert_file(official[0], path, to=to, encoder_only=True)
    model = MODELS.build(tiny_model())
    runner = Runner(
        model=model,
        work_dir=str(tmp_path / "work"),
        load_from=path,
        log_level="ERROR",
        experiment_name=f"encoder_{to}",
        default_scope="mmpretrain",
        cfg=dict(load_from=path),
        custom_hooks=[dict(type="ConvertCheckpointHook")],
    )
    with pytest.raises(ValueError, match=r"model\.backbone\.init_cfg") as info:
        runner.load_or_resume()
    assert path in str(info.value)
    load_checkpoint(model, path)
    assert holds(model, official[1])
    model = MODELS.build(classifier())
    runner.model = model
    runner.load_or_resume()
    assert holds(model, official[1])


def test_encoder_without_decoders__is_one_warning(tmp_path, official, log):
    path = str(tmp_path / "encoder.pth")
    convert_file(official[0], path, encoder_only=True)
    load_checkpoint(MODELS.build(tiny_model()), path)
    assert sum("without decoders" in line for line in log) == 1
    load_checkpoint(MODELS.build(tiny_model()), official[0])
    assert sum("without decoders" in line for line in log) == 1


def test_resuming_an_official_file__is_refused(official):
    content = CheckpointLoader.load_checkpoint(official[0])
    hook = SameBatchHook(None, resuming=True)
    with pytest.raises(ValueError, match="holds weights alone.*load_from=CHECKPOINT"):
        hook.after_load_checkpoint(None, content)


def test_sizes_change_with_the_image_square_or_not(official, log):
    path, state = official
    model = MODELS.build(vit(img_size=(48, 64), init_cfg=pretrained(path)))
    model.init_weights()
    assert model.pos_embed.shape == (1, 49, 24)
    assert torch.equal(model.pos_embed[:, :1], state["backbone.pos_embed"][:, :1])
    assert any("(1, 17, 24) to (1, 49, 24)" in line for line in log)
    smaller = [
        MODELS.build(vit(img_size=16, init_cfg=pretrained(path, antialias=option)))
        for option in (False, True)
    ]
    for each in smaller:
        each.init_weights()
    assert not torch.allclose(smaller[0].pos_embed, smaller[1].pos_embed)
    without = MODELS.build(vit(with_cls_token=False, init_cfg=pretrained(path)))
    without.init_weights()
    assert torch.equal(without.pos_embed, state["backbone.pos_embed"][:, 1:])


def test_as_many_positions_in_another_grid__are_resized(official, log):
    """4x4 patches of a square image are no 2x8 of an oblong one."""
    from mim_plugins.checkpoints.layouts.resize import resize_position_embedding

    path, state = official
    model = MODELS.build(vit(img_size=(16, 64), init_cfg=pretrained(path)))
    model.init_weights()
    table = state["backbone.pos_embed"]
    expected = resize_position_embedding(table, (2, 8))
    assert torch.equal(model.pos_embed, expected)
    assert not torch.equal(expected, table)
    assert any("of 4x4 patches to 2x8" in line for line in log)


def test_own_positions_as_many_as_an_oblong_model_has__are_left_and_noted(
    tmp_path, log
):
    """They may be of this very model: no tensor tells."""
    trained = random_model(vit(img_size=(16, 64)))
    path = str(tmp_path / "own.pth")
    save_state(trained.state_dict(), path)
    model = MODELS.build(vit(img_size=(16, 64), init_cfg=pretrained(path)))
    model.init_weights()
    assert torch.equal(model.pos_embed, trained.pos_embed)
    assert any("positions are taken to be of 2x8 patches" in line for line in log)


def test_relative_positions_are_added_and_resized(tmp_path, official):
    path, state = official
    cfg = vit(type="RelPosVisionTransformer", out_type="avg_featmap")
    model = MODELS.build(cfg | dict(init_cfg=pretrained(path)))
    model.init_weights()
    bias = state["backbone.layers.1.attn.qkv.bias"]
    assert torch.equal(model.layers[1].attn.q_bias, bias[:24])
    trained = random_model(
        dict(
            type="ImageClassifier",
            backbone=cfg,
            head=dict(type="LinearClsHead", num_classes=5, in_channels=24),
        )
    )
    save_state(to_official(trained.state_dict())[0], tmp_path / "rpe.pth")
    larger = MODELS.build(cfg | dict(img_size=48))
    load_checkpoint(larger, str(tmp_path / "rpe.pth"))
    table = larger.layers[0].attn.relative_position_bias_table
    assert table.shape == (11 * 11 + 3, 2)
    own = trained.backbone.layers[0].attn.relative_position_bias_table
    assert torch.equal(table[-3:], own[-3:])
    # A plain ViT would silently leave them out.
    plain = MODELS.build(vit())
    with pytest.raises(ValueError, match="no place for its .*relative_position_bias"):
        load_checkpoint(plain, str(tmp_path / "rpe.pth"))


def test_swin__windows_and_the_place_of_the_norm(tmp_path):
    arch = dict(embed_dims=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 2))
    backbone = dict(type="SwinTransformer", arch=arch, img_size=128, window_size=4)
    swin = dict(
        type="ImageClassifier",
        backbone=backbone,
        neck=dict(type="GlobalAveragePooling"),
        head=dict(type="LinearClsHead", num_classes=3, in_channels=64),
    )
    trained = random_model(swin)
    path = str(tmp_path / "swin.pth")
    save_state(
        to_official(trained.state_dict(), img_size=128)[0], path, wrapper="model"
    )
    same = MODELS.build(swin)
    load_checkpoint(same, path)
    own, expected = same.state_dict(), trained.state_dict()
    assert all(torch.equal(own[key], expected[key]) for key in expected)
    wider = MODELS.build(backbone | dict(window_size=6, pad_small_map=True))
    load_checkpoint(wider, path)
    key = "stages.0.blocks.0.attn.w_msa.relative_position_bias_table"
    assert wider.state_dict()[key].shape == (121, 1)
    after = swin | dict(
        backbone=backbone | dict(norm_cfg=None),
        neck=dict(type="PooledNorm", in_channels=64),
    )
    pooled = MODELS.build(after)
    load_checkpoint(pooled, path)
    assert torch.equal(pooled.neck.norm.weight, trained.backbone.norm3.weight)


@pytest.mark.parametrize("final_stage", [2, 3])
def test_simmim__its_norm_is_that_of_the_stage_the_model_decodes(tmp_path, final_stage):
    arch = dict(embed_dims=8, depths=(1, 1, 2, 1), num_heads=(1, 1, 2, 2))
    cfg = dict(
        type="MaskedImageModel",
        mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.6),
        backbone=dict(
            type="SimMIMSwin",
            arch=arch,
            img_size=64,
            window_size=4,
            final_stage=final_stage,
        ),
        neck=dict(type="SimMIMDecoder", embed_dims=12, num_heads=3),
        target_generator=dict(type="PixelTarget", cell_size=32),
        head=dict(type="ReconstructionHead", criterion="L1"),
    )
    trained, model = random_model(cfg), MODELS.build(cfg)
    path = str(tmp_path / "simmim.pth")
    official = to_official(trained.state_dict(), img_size=64)[0]
    save_state(official, path, wrapper="model")
    load_checkpoint(model, path)
    own, expected = model.state_dict(), trained.state_dict()
    assert all(torch.equal(own[key], expected[key]) for key in expected)


def test_hiera__of_another_image_size(tmp_path):
    trained = random_model(hiera_model())
    save_state(to_official(trained.state_dict())[0], tmp_path / "x.pth")
    model = MODELS.build(hiera_model(img_size=96))
    load_checkpoint(model, str(tmp_path / "x.pth"))
    assert torch.equal(
        model.backbone.layers[0].ln1.weight, trained.backbone.layers[0].ln1.weight
    )
    assert not torch.equal(model.backbone.pos_embed, torch.zeros(1))


def test_classifier__of_another_number_of_classes_keeps_its_own_head(tmp_path, log):
    trained = random_model(classifier())
    save_state(to_official(trained.state_dict())[0], tmp_path / "x.pth")
    cfg = classifier()
    cfg["head"]["num_classes"] = 7
    model = MODELS.build(cfg)
    before = model.head.fc.weight.clone()
    load_checkpoint(model, str(tmp_path / "x.pth"))
    assert torch.equal(model.backbone.ln2.weight, trained.backbone.ln2.weight)
    assert torch.equal(model.head.fc.weight, before)
    assert any("another number of classes" in line for line in log)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(arch=TINY_ARCH | dict(num_layers=5)), "layers.4.*are not in it"),
        (dict(arch=TINY_ARCH | dict(num_layers=3)), "no place for its 12 layers.3"),
        (dict(arch=TINY_ARCH | dict(embed_dims=36)), "other sizes .*instead of"),
        (dict(in_channels=4), "patch_embed.projection.weight .*instead of"),
    ],
)
def test_another_architecture__is_refused_by_name(official, changes, message):
    model = MODELS.build(vit(**changes, init_cfg=pretrained(official[0])))
    with pytest.raises(ValueError, match=message):
        model.init_weights()


def test_swin_for_a_vit__is_refused(official):
    arch = dict(embed_dims=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 2))
    swin = MODELS.build(
        dict(type="SwinTransformer", arch=arch, img_size=128, window_size=4)
    )
    with pytest.raises(ValueError, match="another architecture than the SwinTrans"):
        load_checkpoint(swin, official[0])


def test_three_heads_for_twelve__are_refused_official_or_converted(tmp_path):
    arch = dict(embed_dims=192, num_layers=1, feedforward_channels=8)
    cfg = tiny_model(
        taps=(), backbone=dict(arch=arch | dict(num_heads=12)), neck=dict(depth=1)
    )
    state, _ = to_official(MODELS.build(cfg).state_dict())
    save_state(state, tmp_path / "mae.pth", wrapper="model")
    convert_file(tmp_path / "mae.pth", tmp_path / "ours.pth")
    for name, prefix in [("mae.pth", None), ("ours.pth", "backbone.")]:
        init = pretrained(str(tmp_path / name), prefix=prefix)
        MODELS.build(vit(arch=arch | dict(num_heads=12), init_cfg=init)).init_weights()
        three = MODELS.build(vit(arch=arch | dict(num_heads=3), init_cfg=init))
        with pytest.raises(ValueError, match="trained with 12 attention heads, the mo"):
            three.init_weights()


def test_a_model_with_official_keys_of_its_own__gets_them(official):
    """Such as mmdet's ViTDet project, or a timm model."""
    path, _ = official

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = torch.nn.Module()
            self.attn.qkv = torch.nn.Linear(24, 72)

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList([Block(), Block()])

    model = Theirs()
    load_checkpoint(model, path)
    official = read(path).tensors
    assert torch.equal(
        model.blocks[1].attn.qkv.weight, official["blocks.1.attn.qkv.weight"]
    )


def test_unknown_keys_of_an_official_file__are_an_error(tmp_path, official):
    content = torch.load(official[0], weights_only=True)
    content["model"]["blocks.0.attn.extra"] = torch.ones(1)
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.extra"):
        load_checkpoint(MODELS.build(vit()), str(tmp_path / "x.pth"))


def test_prefix_that_is_not_there__is_named(tmp_path):
    torch.save({"state_dict": {"conv.weight": torch.ones(1)}}, tmp_path / "x.pth")
    init = pretrained(str(tmp_path / "x.pth"), prefix="backbone.")
    with pytest.raises(ValueError, match="prefix='backbone.'; it has conv.weight"):
        MODELS.build(vit(init_cfg=init)).init_weights()


def test_loading_runs_no_code(tmp_path, monkeypatch):
    import os

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    torch.save({"state_dict": {"w": torch.ones(1)}, "x": Evil()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="MIM_PLUGINS_TRUST_CHECKPOINTS=1"):
        load_checkpoint(torch.nn.Linear(1, 1), str(tmp_path / "x.pth"))
    assert not (tmp_path / "was_run").exists()
    monkeypatch.setenv("MIM_PLUGINS_TRUST_CHECKPOINTS", "1")
    load_checkpoint(torch.nn.Linear(1, 1), str(tmp_path / "x.pth"))
    assert (tmp_path / "was_run").exists()


def test_paddle_and_safetensors_files_load_too(tmp_path, official):
    _, state = official
    for name in ("x.safetensors", "x.pdparams"):
        save_state(state, tmp_path / name)
        model = MODELS.build(tiny_model())
        load_checkpoint(model, str(tmp_path / name))
        assert holds(model, state)
