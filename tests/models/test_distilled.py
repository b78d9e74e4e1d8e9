"""Distillation: what is compared, what it costs, what is left of it afterwards."""

import copy

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, tiny_model
from torch.nn import functional as F

from mim_plugins.models import MIMVisionTransformer, PatchMask, attention

TEACHER_ARCH = dict(embed_dims=32, num_layers=4, num_heads=4, feedforward_channels=64)
TEACHER = dict(
    type="MIMVisionTransformer", arch=TEACHER_ARCH, img_size=32, patch_size=8
)
LAST = dict(type="AttentionDistillation", student_layers=(3,))
D2 = dict(
    backbone=dict(final_block=1),
    extra_block=True,
    distillation=[dict(LAST, student_layers=(4,), teacher_layers=(3,))],
)


@pytest.fixture
def distil(tmp_path):
    """Builds a student with a trained teacher."""

    def _distil(taps=(), distillation=(LAST,), extra_block=False, target=None, **parts):
        network = MODELS.build(dict(TEACHER))
        network.init_weights()
        path = tmp_path / "teacher.pth"
        state = {f"backbone.{key}": v for key, v in network.state_dict().items()}
        torch.save(dict(state_dict=state), path)
        cfg = tiny_model(taps=taps, **parts) | dict(
            type="DistilledMIM",
            teacher=dict(TEACHER),
            teacher_checkpoint=str(path),
            distillation=list(distillation),
            extra_block=extra_block,
        )
        cfg["target_generator"] = target or cfg["target_generator"]
        model = MODELS.build(cfg)
        model.init_weights()
        return model

    return _distil


@pytest.fixture
def batch():
    """Images, and one mask for all methods."""
    return torch.randn(2, 3, 32, 32), PatchMask.from_noise(
        torch.rand(2, 16), 0.75, (4, 4)
    )


def given(mask):
    return dict(mask=mask.mask)


def in_raster_order(mask):
    return PatchMask.from_mask(mask.mask, mask.grid)


def block_inputs(encoder, images, mask):
    """Tokens that enter each block and leave the last, the plain way."""
    tokens = encoder.embed_visible(images, mask)
    entered = [tokens]
    for layer in encoder.layers:
        tokens = tokens + layer.attn(layer.ln1(tokens))
        tokens = layer.ffn(layer.ln2(tokens), identity=tokens)
        entered.append(tokens)
    return entered


def official_logits(block, tokens):
    """Logits before the softmax, as the official code computes them."""
    n, length, dims = tokens.shape
    heads = block.attn.num_heads
    qkv = block.attn.qkv(block.ln1(tokens)).reshape(n, length, 3, heads, dims // heads)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4)
    return (q @ k.transpose(-2, -1)) * (dims // heads) ** -0.5


def test_loss__plain_mae_and_the_attention_of_the_last_block(distil, batch):
    model, (images, mask) = distil(distillation=[dict(LAST, weight=3.0)]), batch
    losses = model.loss(images, given(mask))
    assert set(losses) == {"loss_reconstruction", "loss_attention"}
    plain = MODELS.build(tiny_model(taps=()))
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(
        losses["loss_reconstruction"], plain.loss(images, given(mask))["loss"]
    )
    mask, network = in_raster_order(mask), model.teacher.network.encoder
    ours = official_logits(
        model.backbone.layers[3], block_inputs(model.backbone, images, mask)[3]
    )
    theirs = official_logits(network.layers[3], block_inputs(network, images, mask)[3])
    weight = model.distillation["attention"].adapters[0].weight
    assert weight.shape == (4, 2, 1, 1)
    adapted = torch.einsum("ts,nsqk->ntqk", weight[:, :, 0, 0], ours)
    wanted = 3 * (adapted - theirs).square().mean()
    torch.testing.assert_close(losses["loss_attention"], wanted)
    total, logged = model.parse_losses(losses)
    assert torch.equal(logged["loss"], total)


def test_loss__hidden_states_are_normed_inputs_and_the_final_norm(distil, batch):
    terms = [dict(type="HiddenDistillation", student_layers=(0, 2, 4), weight=0.5)]
    model, (images, mask) = distil(distillation=terms), batch
    loss = model.loss(images, given(mask))["loss_hidden"]
    mask, wanted = in_raster_order(mask), 0
    student, teacher = model.backbone, model.teacher.network.encoder
    entered = [block_inputs(e, images, mask) for e in (student, teacher)]
    for adapter, index in zip(
        model.distillation["hidden"].adapters, (0, 2, 4), strict=True
    ):
        ours, theirs = (
            encoder.ln1(tokens[4]) if index == 4 else
            encoder.layers[index].ln1(tokens[index])
            for encoder, tokens in zip((student, teacher), entered, strict=True)
        )  # fmt: skip
        assert adapter.bias is None
        wanted = wanted + 0.5 * F.mse_loss(adapter(ours), theirs)
    torch.testing.assert_close(loss, wanted)


def test_d2__decoder_reads_block_k_and_the_extra_block_reads_the_top(distil, batch):
    model, (images, mask) = distil(**D2), batch
    model.loss(images, given(mask))["loss_reconstruction"].backward()
    above = [p.grad is None for p in model.backbone.layers[2:].parameters()]
    assert all(above) and model.backbone.layers[1].ffn.layers[1].weight.grad is not None
    entered = block_inputs(model.backbone, images, mask)
    latent = model.backbone(images, mask)
    assert len(latent) == 1
    torch.testing.assert_close(latent[0], model.backbone.ln1(entered[2]))
    read = model.student.from_stream(model.backbone.stream(images, mask))
    wanted = official_logits(model.extra_block, entered[4])
    torch.testing.assert_close(read["attention"][0], wanted)
    # The values' third of the extra block is there, as officially, and gets zeros.
    model.zero_grad()
    model.loss(images, given(mask))["loss_attention"].backward()
    grad = model.extra_block.attn.qkv.weight.grad
    assert grad[:48].abs().sum() > 0 and grad[48:].abs().sum() == 0
    assert model.backbone.layers[0].attn.qkv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("form", [dict(), D2], ids=["mae-lite", "d2"])
def test_loss__every_trainable_parameter_gets_a_gradient(form, distil, batch):
    model = distil(**form)
    sum(model.loss(batch[0]).values()).backward()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert without == frozen == {"backbone.pos_embed", "neck.decoder_pos_embed"}


def test_teacher__runs_once_no_further_than_needed_without_autograd(
    distil, batch, monkeypatch
):
    model, computed = distil(), []
    encoder = model.teacher.network.encoder
    entered = [0] * 4
    for index, layer in enumerate(encoder.layers):
        layer.register_forward_hook(
            lambda _m, _i, out, index=index: entered.__setitem__(
                index, entered[index] + 1 + 10 * out.requires_grad
            )
        )
    logits = attention.attention_logits

    def counted(query, *rest):
        computed.append(query.shape[1])
        return logits(query, *rest)

    monkeypatch.setattr(attention, "attention_logits", counted)
    model.train()
    sum(model.loss(batch[0]).values()).backward()
    # The last block is read, and not run.
    assert entered == [1, 1, 1, 0]
    # Of all blocks one of the student's (2 heads) and one of the teacher's (4).
    assert sorted(computed) == [2, 4]
    assert not encoder.training
    assert all(p.grad is None for p in encoder.parameters())


def test_teacher__is_no_part_of_the_model_and_shared_by_copies(distil):
    model = distil(**D2)
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {"backbone", "neck", "distillation", "extra_block"}
    assert names | {"data_preprocessor"} >= {
        k.split(".")[0] for k in model.state_dict()
    }
    network = model.teacher.network
    twin = copy.deepcopy(model)
    assert twin.teacher.network is network
    # The copy reads itself.
    assert twin.student.encoder is twin.backbone
    assert twin.student.extra_block is twin.extra_block
    model.to("meta")
    assert model.teacher.network.encoder.cls_token.is_meta


def test_autocast__teacher_in_the_students_dtype_and_losses_in_float32(distil, batch):
    model, (images, mask) = distil(), batch
    exact = model.loss(images, given(mask))["loss_attention"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        read = model.student.from_stream(model.backbone.stream(images, mask))
        taught = model.teacher(images, mask)
        rough = model.loss(images, given(mask))["loss_attention"]
    assert read["attention"][0].dtype == taught["attention"][0].dtype == torch.bfloat16
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=5e-2, atol=0)


def test_teacher__in_another_type_than_the_images_gets_its_own(distil, batch):
    """As in fully sharded training, which casts the images of the model."""
    model, (images, mask) = distil(), batch
    exact = model.teacher(images, mask)["attention"][0]
    rough = model.teacher(images.bfloat16(), mask)["attention"][0]
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.1)
    low = model.to(torch.bfloat16).loss(images.bfloat16(), given(mask))
    assert low["loss_attention"].dtype == torch.float32


def test_checkpointing__changes_nothing(distil, batch):
    plain, (images, mask) = distil(**D2), batch
    form = D2 | dict(backbone=dict(final_block=1, with_cp=True))
    saving = distil(**form)
    saving.load_state_dict(plain.state_dict())
    saving.teacher = plain.teacher
    grads = []
    for model in (plain, saving):
        sum(model.loss(images, given(mask)).values()).backward()
        grads.append({n: p.grad for n, p in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad)


def test_on_top_of__deep_supervision_and_local_reconstruction(distil, batch):
    images, mask = batch
    losses = distil(taps=(1, 2)).loss(images, given(mask))
    assert list(losses) == ["loss_0", "loss_1", "loss_2", "loss_attention"]
    # The cells of LocalMIM, which depend on its decoder, not on the algorithm.
    local = distil(
        taps=(0, 1, 2),
        neck=dict(type="MultiScaleDecoder", depth=1),
        target=dict(type="HOGTarget", nbins=6),
    )
    assert local.target_generator.cell_sizes == [2, 4, 8, 16]
    losses = local.loss(images, given(mask))
    assert list(losses)[:4] == [f"loss_{level}" for level in range(4)]
    assert list(losses)[4:] == ["loss_attention"]


def test_features__of_a_decoupled_student_are_those_of_all_blocks(distil, batch):
    model, (images, _) = distil(**D2), batch
    before = model.image_features(images)
    with torch.no_grad():
        model.backbone.layers[-1].ffn.layers[1].bias.add_(1.0)
        model.backbone.ln1.bias.add_(1.0)
    after = model.image_features(images)
    torch.testing.assert_close(after.patch, before.patch + 1)
    torch.testing.assert_close(after.cls, before.cls + 1)


@pytest.mark.parametrize(
    ("out_type", "final_norm", "initialised"),
    [("cls_token", True, set()), ("avg_featmap", False, {"ln2.weight", "ln2.bias"})],
)
def test_export__a_d2_student_is_a_plain_encoder(
    distil, tmp_path, out_type, final_norm, initialised
):
    source = distil(**D2)
    path = str(tmp_path / "pretrained.pth")
    torch.save({"state_dict": source.state_dict()}, path)
    classifier = MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=dict(
                type="VisionTransformer",
                arch=dict(TINY_ARCH),
                img_size=32,
                patch_size=8,
                out_type=out_type,
                final_norm=final_norm,
            ),
            head=dict(type="LinearClsHead", num_classes=3, in_channels=24),
        )
    )
    needed = {k for k in classifier.state_dict() if k.startswith("backbone.")}
    given = {k for k in source.state_dict() if k.startswith("backbone.")}
    assert needed - given == {f"backbone.{k}" for k in initialised}
    assert given - needed <= {"backbone.ln1.weight", "backbone.ln1.bias"}
    blocks = {int(k.split(".")[2]) for k in given if k.startswith("backbone.layers.")}
    assert blocks == set(range(4))
    load_checkpoint(classifier, path)
    for key in needed & given:
        assert torch.equal(classifier.state_dict()[key], source.state_dict()[key])


def test_teacher__a_built_one_needs_no_file():
    network = MIMVisionTransformer(arch=TEACHER_ARCH, img_size=32, patch_size=8)
    cfg = tiny_model(taps=()) | dict(
        type="DistilledMIM", teacher=network, distillation=[LAST]
    )
    assert MODELS.build(cfg).teacher.network.encoder is network
