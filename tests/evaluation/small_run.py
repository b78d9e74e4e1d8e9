"""What tests of encoders share: images, and what a tiny run leaves."""

import cv2
import numpy as np
import torch
from mmpretrain.registry import MODELS
from samples import TINY_ARCH

COUNT = 7
DATA = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
FILES = [f"cat/{n}.png" for n in (1, 2, 3)] + [
    f"dog/puppies/{n}.png" for n in (4, 5, 6, 7)
]


def saved(model, folder, name="tiny"):
    """A config and a checkpoint of a model with no two tensors alike."""
    network = MODELS.build(model)
    network.init_weights()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    network.eval()
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(f"model = {model!r}\n")
    torch.save({"state_dict": network.state_dict()}, folder / f"{name}.pth")
    return network, str(folder / f"{name}.py"), str(folder / f"{name}.pth")


def pictures(folder, files=FILES):
    """The images as tensors, BGR as OpenCV reads them, (N, 3, 32, 32)."""
    images = [cv2.imread(str(folder / file)) for file in files]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def normalised(network, images):
    data = dict(inputs=images, data_samples=None)
    return network.data_preprocessor(data, False)["inputs"]


def classifier(neck=None, **backbone):
    head = dict(type="LinearClsHead", num_classes=3, in_channels=24)
    return dict(
        type="ImageClassifier",
        data_preprocessor=dict(DATA, to_rgb=True),
        backbone=backbone,
        neck=neck,
        head=head,
    )


VIT = dict(arch=TINY_ARCH, img_size=32, patch_size=8)
SWIN = dict(
    arch=dict(embed_dims=3, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1)),
    img_size=32,
    window_size=2,
)
HIERA = dict(arch=dict(embed_dims=3, depths=(1, 1, 1, 1), num_heads=1), img_size=32)
ENCODERS = {
    "vit": (classifier(type="VisionTransformer", out_type="avg_featmap", **VIT), 16),
    "vit cls": (classifier(type="MIMVisionTransformer", **VIT), 16),
    "rel pos": (classifier(type="RelPosVisionTransformer", **VIT), 16),
    "deit": (classifier(type="DistilledVisionTransformer", **VIT), 16),
    "swin": (
        classifier(
            dict(type="GlobalAveragePooling"),
            type="SwinTransformer",
            pad_small_map=True,
            **SWIN,
        ),
        1,
    ),
    "localmim swin": (
        classifier(
            dict(type="PooledNorm", in_channels=24),
            type="MIMSwinTransformer",
            norm_cfg=None,
            **SWIN,
        ),
        1,
    ),
    "hiera": (classifier(type="Hiera", **HIERA), 1),
}
