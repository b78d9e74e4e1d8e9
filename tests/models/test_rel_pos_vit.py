"""The relative-position ViT: mmpretrain's BEiT, both bias layouts, any grid on load."""

from copy import deepcopy

import pytest
import torch
from mmpretrain.models import BEiTViT, VisionTransformer
from samples import TINY_ARCH

from mim_plugins.checkpoints import read
from mim_plugins.checkpoints.layouts.resize import resize_offset_table
from mim_plugins.checkpoints.loading import Target, state_for
from mim_plugins.models import RelPosVisionTransformer

TABLE = "layers.{}.attn.relative_position_bias_table"


def encoder(cls=RelPosVisionTransformer, **kwargs):
    kwargs = dict(arch=dict(TINY_ARCH), img_size=32, patch_size=8) | kwargs
    model = cls(**kwargs)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.eval()
    return model


def images(height=32, width=32):
    return torch.randn(2, 3, height, width)


@pytest.mark.parametrize("bias", ["qv_bias", True, False])
@pytest.mark.parametrize("shared", [False, True])
def test_forward__equals_mmpretrains(bias, shared):
    options = dict(
        bias=bias,
        use_abs_pos_emb=True,
        use_rel_pos_bias=not shared,
        use_shared_rel_pos_bias=shared,
        layer_scale_init_value=0.1 if shared else 0.0,
    )
    ours, theirs = encoder(**options), encoder(BEiTViT, **options)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = images()
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=1e-4, atol=1e-5)


def test_load__both_bias_layouts_give_the_same_output():
    queries_and_values, full = encoder(bias="qv_bias"), encoder(bias=True)
    x = images()
    full.load_state_dict(queries_and_values.state_dict(), strict=True)
    assert full.layers[0].attn.qkv.bias[:24].abs().sum() > 0
    assert full.layers[0].attn.qkv.bias[24:48].abs().sum() == 0
    torch.testing.assert_close(full(x)[0], queries_and_values(x)[0])
    # A bias of the keys moves all logits of a query alike: leaving it out is exact.
    full = encoder(bias=True)
    queries_and_values.load_state_dict(full.state_dict(), strict=True)
    torch.testing.assert_close(
        queries_and_values(x)[0], full(x)[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("keep", [True, False])
def test_load__pretrained_biases_are_kept_or_left_out_on_request(keep, tmp_path):
    plain = encoder(VisionTransformer)
    path = str(tmp_path / "pretrained.pth")
    torch.save({f"backbone.{k}": v for k, v in plain.state_dict().items()}, path)
    model = RelPosVisionTransformer(
        arch=dict(TINY_ARCH),
        img_size=32,
        patch_size=8,
        keep_bias=keep,
        init_cfg=dict(type="Pretrained", checkpoint=path, prefix="backbone."),
    )
    model.init_weights()
    attn, source = model.layers[2].attn, plain.layers[2].attn.qkv
    assert torch.equal(attn.qkv.weight, source.weight)
    for ours, theirs in (
        (attn.q_bias, source.bias[:24]),
        (attn.v_bias, source.bias[48:]),
    ):
        assert torch.equal(ours, theirs if keep else torch.zeros(24))
    # Relative positions start at zero: the model is the plain one at first.
    if keep:
        x = images()
        tokens = plain(x)[0]
        model.eval()
        model.out_type, model.final_norm, model.ln1 = "cls_token", True, plain.ln1
        torch.testing.assert_close(model(x)[0], tokens, rtol=1e-4, atol=1e-5)


def test_load__tables_and_positions_of_another_image_size():
    source = encoder(img_size=48)
    for img_size, grid in ((32, (4, 4)), ((32, 64), (4, 8))):
        model = encoder(img_size=img_size)
        incompatible = model.load_state_dict(source.state_dict(), strict=True)
        assert not incompatible.missing_keys and not incompatible.unexpected_keys
        state = source.state_dict()
        for index in range(4):
            wanted = resize_offset_table(state[TABLE.format(index)], grid)
            assert torch.equal(model.state_dict()[TABLE.format(index)], wanted)
        height, width = grid[0] * 8, grid[1] * 8
        assert model(images(height, width))[0].shape == (2, 24)


def test_load__one_shared_table_becomes_every_blocks():
    source = encoder(use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
    model = encoder()
    state = {f"backbone.{k}": v for k, v in source.state_dict().items()}
    holder = torch.nn.Module()
    holder.backbone = model
    load_checkpoint_of(holder, state)
    x = images()
    torch.testing.assert_close(model(x)[0], source(x)[0], rtol=1e-4, atol=1e-5)


def load_checkpoint_of(model, state):
    incompatible = model.load_state_dict(state, strict=True)
    assert not incompatible.missing_keys and not incompatible.unexpected_keys


def test_load__tables_of_other_heads_are_refused():
    state = encoder(arch=TINY_ARCH | dict(num_heads=4)).state_dict()
    with pytest.raises(ValueError, match="trained with 4 attention heads, .* has 2"):
        encoder().load_state_dict(state)


@pytest.mark.parametrize(
    ("of_file", "of_model", "message"),
    [
        (dict(bias=True), dict(bias=False), "has biases .* set bias=True"),
        (dict(), dict(bias=False), "has biases .* set bias=True"),
        (
            dict(),
            dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True),
            "in every block .* one table for all: set use_rel_pos_bias=True",
        ),
    ],
)
def test_load__what_has_no_place_is_refused(of_file, of_model, message):
    with pytest.raises(ValueError, match=message):
        encoder(**of_model).load_state_dict(encoder(**of_file).state_dict())


def test_load__biases_of_queries_and_values_are_never_lost_on_the_way(tmp_path):
    torch.save(dict(state_dict=encoder().state_dict()), tmp_path / "qv.pth")
    # mmpretrain's model loads its own form only.
    other = Target.of(encoder(BEiTViT, bias=True))
    with pytest.raises(ValueError, match=r"qkv\.bias.* are not in it"):
        state_for(other, read(tmp_path / "qv.pth"))


def test_frozen_stages__freeze_the_attention_too():
    model = encoder(frozen_stages=2)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in trained if "layers" in name} == {"2", "3"}
    assert not any("embed" in name for name in trained)


def test_forward__images_of_another_size_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match="4x6 .* of 4x4: .*set img_size"):
        encoder()(images(32, 48))


def test_resize__equals_the_official_spline():
    interpolate = pytest.importorskip("scipy.interpolate")
    for old, new in ((14, 32), (14, 7), (6, 9)):
        table = torch.randn((2 * old - 1) ** 2 + 3, 3)
        # BEiT's code, with the function that takes the place of the one it uses.
        src, dst = 2 * old - 1, 2 * new - 1
        left, right = 1.01, 1.5
        while right - left > 1e-6:
            q = (left + right) / 2
            reach = (1 - q ** (src // 2)) / (1 - q)
            left, right = (left, q) if reach > dst // 2 else (q, right)
        steps, places = 1, []
        for i in range(src // 2):
            places.append(steps)
            steps += q ** (i + 1)
        source = [-place for place in reversed(places)] + [0] + places
        asked = range(-(dst // 2), dst // 2 + 1)
        heads = [
            interpolate.RectBivariateSpline(
                source, source, table[:-3, head].view(src, src).double(), s=0
            )(asked, asked)
            for head in range(3)
        ]
        wanted = torch.stack([torch.from_numpy(head).flatten() for head in heads], 1)
        result = resize_offset_table(table, (new, new))
        torch.testing.assert_close(result[:-3], wanted.float(), rtol=1e-5, atol=1e-6)
        assert torch.equal(result[-3:], table[-3:])


def test_resize__keeps_an_axis_that_keeps_its_size_and_refuses_oblong_tables():
    table = torch.randn(7 * 7 + 3, 2)
    same = resize_offset_table(table, (4, 4))
    torch.testing.assert_close(same, table)
    oblong = resize_offset_table(table, (4, 2))
    assert oblong.shape == (7 * 3 + 3, 2)
    with pytest.raises(ValueError, match="24 rows is of no square grid"):
        resize_offset_table(oblong, (4, 4))


def test_init_weights__as_the_official_code():
    model = RelPosVisionTransformer(
        arch=dict(embed_dims=192, num_layers=3, num_heads=12, feedforward_channels=768),
        img_size=32,
        patch_size=16,
    )
    model.init_weights()
    state = model.state_dict()
    for index in range(3):
        assert state[TABLE.format(index)].abs().sum() == 0
        layer = model.layers[index]
        scale = (2 * (index + 1)) ** -0.5
        for linear in (layer.attn.proj, layer.ffn.layers[1]):
            assert linear.weight.std().item() == pytest.approx(0.02 * scale, rel=0.03)
            assert linear.bias.abs().sum() == 0
        assert layer.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert layer.attn.q_bias.abs().sum() == 0
        # Pinned, as 1e-5 would go unnoticed elsewhere.
        assert layer.ln1.eps == model.ln2.eps == 1e-6


def test_out_indices__give_un_normed_maps_of_blocks():
    model = encoder(out_type="featmap", out_indices=(0, 3), layer_scale_init_value=1.0)
    tokens = []
    for layer in model.layers:
        layer.register_forward_hook(lambda _m, _i, output: tokens.append(output))
    first, last = model(images())
    for index, found in ((0, first), (3, last)):
        assert torch.equal(found, tokens[index][:, 1:].mT.unflatten(2, (4, 4)))


@pytest.mark.parametrize("blocks", [(1, 4), (3, 1), (1, 1)])
def test_out_indices__that_there_are_not_are_refused(blocks):
    with pytest.raises(ValueError, match=r"from 0 to 3: zero-based .* the 4 blocks"):
        encoder(out_type="featmap", out_indices=blocks)


def test_recomputing__changes_no_gradient():
    plain, again = encoder(), encoder(with_cp=True)
    again.load_state_dict(plain.state_dict())
    x = images()
    for model in (plain, again):
        model.train()
        model(x)[0].square().sum().backward()
    for name, parameter in plain.named_parameters():
        gradient = again.get_parameter(name).grad
        torch.testing.assert_close(gradient, parameter.grad, msg=name)


def test_required_size__is_that_of_the_relative_positions():
    assert encoder(img_size=(32, 48)).required_size == (32, 48)
    assert encoder(use_rel_pos_bias=False).required_size is None


@pytest.mark.parametrize("shared", [False, True])
def test_forward__refuses_another_grid_of_as_many_patches(shared):
    model = encoder(
        img_size=(32, 48), use_rel_pos_bias=not shared, use_shared_rel_pos_bias=shared
    )
    model(images(32, 48))
    model(images(31, 47))  # padded to the same patches
    with pytest.raises(ValueError, match=r"6x4 patches.* 4x6.*img_size=\(32, 48\)"):
        model(images(48, 32))
    with pytest.raises(ValueError, match="img_size"):
        deepcopy(model)(images(64, 64))
    encoder(img_size=(32, 48), use_rel_pos_bias=False)(images(48, 32))


@pytest.mark.parametrize("shared", [False, True])
def test_frozen_stages__nothing_of_them_is_trained(shared):
    model = encoder(
        frozen_stages=2,
        use_rel_pos_bias=not shared,
        use_shared_rel_pos_bias=shared,
    )
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        name
        for name, _ in model.named_parameters()
        if name.startswith(("layers.2.", "layers.3.", "ln1", "ln2"))
    }
