"""Fine-tuning with a supervised teacher."""

import pytest
import torch
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from samples import TINY_ARCH
from torch import nn
from torch.nn import functional as F

from mim_plugins.checkpoints import to_official
from mim_plugins.checkpoints.files import save_state

BACKBONE = dict(
    type="VisionTransformer",
    arch=dict(TINY_ARCH),
    img_size=32,
    patch_size=8,
    out_type="raw",
    final_norm=False,
)
TEACHER = dict(
    type="ImageClassifier",
    backbone=BACKBONE | dict(out_type="cls_token", final_norm=True),
    head=dict(type="LinearClsHead", num_classes=5, in_channels=24),
)


def classifier(teacher=None, backbone=None, **head):
    cfg = dict(
        type="DistilledClassifier",
        teacher=teacher or MODELS.build(TEACHER),
        backbone=BACKBONE | (backbone or {}),
        head=dict(type="TokenDistillationHead", num_classes=5, in_channels=24) | head,
    )
    return MODELS.build(cfg)


@pytest.fixture
def batch():
    labels = [DataSample().set_gt_label(label) for label in (1, 4)]
    return torch.randn(2, 3, 32, 32), labels


@pytest.mark.parametrize(("kind", "tau"), [("hard", 1.0), ("soft", 2.0)])
def test_loss__labels_teach_the_patches_the_teacher_the_class_token(kind, tau, batch):
    model, (images, samples) = classifier(kind=kind, tau=tau, alpha=0.25), batch
    losses = model.loss(images, samples)
    tokens, head = model.backbone(images)[-1], model.head
    logits = head.fc(head.norm(tokens[:, 1:].mean(1)))
    logits_dist = head.fc_dist(head.norm_dist(tokens[:, 0]))
    with torch.no_grad():
        taught = model.teacher.network(images)
    wanted = F.cross_entropy(logits, torch.tensor([1, 4]))
    torch.testing.assert_close(losses["loss_label"], 0.75 * wanted)
    if kind == "hard":
        wanted = F.cross_entropy(logits_dist, taught.argmax(1))
    else:
        p, q = (taught / tau).softmax(1), (logits_dist / tau).log_softmax(1)
        wanted = (p * (p.log() - q)).sum() * tau**2 / (2 * 5)
    torch.testing.assert_close(losses["loss_teacher"], 0.25 * wanted)
    torch.testing.assert_close(model(images, mode="tensor"), (logits + logits_dist) / 2)


def test_teacher__is_frozen_and_no_part_of_the_model(batch):
    model = classifier()
    assert not any(key.startswith("teacher") for key in model.state_dict())
    model.train()
    sum(model.loss(*batch).values()).backward()
    assert not model.teacher.network.training
    assert all(p.grad is None for p in model.teacher.network.parameters())
    # All but the position of nothing: every parameter of the student learns.
    assert all(p.grad is not None for p in model.parameters())


def test_teacher__weights_of_a_file_or_a_refusal(tmp_path):
    source = MODELS.build(dict(TEACHER))
    path = tmp_path / "teacher.pth"
    torch.save(dict(state_dict=source.state_dict()), path)
    cfg = dict(
        type="DistilledClassifier",
        backbone=dict(BACKBONE),
        head=dict(type="TokenDistillationHead", num_classes=5, in_channels=24),
        teacher_checkpoint=path,
    )
    network = MODELS.build(cfg | dict(teacher=TEACHER)).teacher.network
    for key, value in source.state_dict().items():
        assert torch.equal(network.state_dict()[key], value)
    other = TEACHER | dict(head=TEACHER["head"] | dict(num_classes=7))
    with pytest.raises(ValueError, match=r"teacher.pth does not.*head.fc.bias \(5,\)"):
        MODELS.build(cfg | dict(teacher=other))


@pytest.mark.parametrize("way", ["pretrained", "init_cfg"])
def test_teacher__brings_its_own_weights(way, tmp_path):
    source = MODELS.build(TEACHER)
    path = str(tmp_path / "teacher.pth")
    torch.save(dict(state_dict=source.state_dict()), path)
    init_cfg = dict(type="Pretrained", checkpoint=path)
    given = {"pretrained": path, "init_cfg": init_cfg}[way]
    model = classifier(TEACHER | {way: given})
    # Models that are not trained download nothing.
    assert model.teacher is None
    model.init_weights()
    network = model.teacher.network
    assert not network.training
    for key, value in source.state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key


@pytest.mark.parametrize(
    "changes", [dict(), dict(init_cfg=dict(type="Xavier", layer="Linear"))]
)
def test_teacher__without_weights_is_refused(changes):
    with pytest.raises(ValueError, match="ImageClassifier, has no trained weights"):
        classifier(TEACHER | changes)


def test_teacher__official_weights_are_converted(tmp_path):
    """As every teacher's, see test_distilled_build.py."""
    path = tmp_path / "official.pth"
    source = MODELS.build(TEACHER)
    save_state(to_official(source.state_dict())[0], path, wrapper="model")
    cfg = dict(
        type="DistilledClassifier",
        teacher=TEACHER,
        teacher_checkpoint=path,
        backbone=dict(BACKBONE),
        head=dict(type="TokenDistillationHead", num_classes=5, in_channels=24),
    )
    network = MODELS.build(cfg).teacher.network
    assert torch.equal(network.head.fc.weight, source.head.fc.weight)


def test_classes__others_than_the_heads_are_refused_as_soon_as_they_show(batch):
    other = TEACHER | dict(head=TEACHER["head"] | dict(num_classes=7))
    with pytest.raises(ValueError, match="the teacher has 7 classes, the head 5"):
        classifier(MODELS.build(other))
    own_weights = classifier(other | dict(pretrained="weights.pth"))
    with pytest.raises(ValueError, match="the teacher has 7 classes, the head 5"):
        own_weights.init_weights()
    # One that does not say how many it has.
    silent = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7))
    with pytest.raises(ValueError, match="the teacher has 7 classes, the head 5"):
        classifier(silent).loss(*batch)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (dict(with_cls_token=False), "VisionTransformer has 0: leave .*with_cls_token"),
        (dict(type="DistilledVisionTransformer"), "one class token.* has 2"),
        (dict(final_norm=True), "norms both .* set backbone.final_norm=False"),
        (dict(out_type="cls_token"), "out_type='cls_token' .*out_type='raw'"),
    ],
)
def test_head__a_backbone_without_its_tokens_is_refused(backbone, message):
    with pytest.raises(ValueError, match=message):
        classifier(backbone=backbone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(alpha=1.5), "alpha lies between 0 and 1, got 1.5"),
        (dict(alpha="0.5"), "alpha lies between 0 and 1, got '0.5'"),
        (dict(alpha=None), "alpha lies between 0 and 1, got None"),
        (dict(kind="warm"), "kind is one of .*'hard', 'soft'.*got 'warm'"),
        (dict(tau=0), "temperature above 0, got 0"),
    ],
)
def test_head__bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        classifier(**options)


def test_head__pooled_features_are_refused_with_what_to_do():
    model = classifier()
    with pytest.raises(ValueError, match="backbone.out_type='raw'"):
        model.head((torch.randn(2, 24),))
    assert isinstance(model.head, LinearClsHead)
    # Pinned, as 1e-5 would go unnoticed elsewhere.
    assert model.head.norm.eps == model.head.norm_dist.eps == 1e-6
