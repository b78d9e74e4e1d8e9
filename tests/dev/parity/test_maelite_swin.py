"""Golden cases of SimMIM whose decoder reads a stage before the last."""

import json

import numpy as np
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import save_file

from dev.parity import maelite_swin
from dev.parity.case import GoldenCase
from mim_plugins.checkpoints.layouts.simmim import convert_to_official

ENCODER = dict(
    img_size=64,
    patch_size=4,
    in_chans=3,
    num_classes=0,
    embed_dim=6,
    depths=[1, 1, 2, 2],
    num_heads=[1, 1, 2, 2],
    window_size=4,
    mlp_ratio=4.0,
    qkv_bias=True,
    qk_scale=None,
    drop_rate=0.0,
    attn_drop_rate=0.0,
    drop_path_rate=0.0,
    ape=False,
    patch_norm=True,
    decoder_idx=[2],
)
STUDENT = dict(
    cls="SimMIM",
    encoder=ENCODER,
    encoder_stride=32,
    if_stu=True,
    decoder_embed_dim=12,
    num_init_heads=1,
)


def test_case__of_a_student_that_reads_stage_3_of_4_without_a_teacher(tmp_path):
    """The official code computes it: its last stage has weights and no gradients."""
    model = MODELS.build(maelite_swin.simmim_config(STUDENT, 0.5))
    model.init_weights()
    weights = convert_to_official(model.state_dict(), img_size=64)
    save_file(
        {k: v.contiguous() for k, v in weights.items()},
        tmp_path / "weights.safetensors",
    )
    case = dict(method="maelite", model=STUDENT, mask_ratio=0.5)
    (tmp_path / "case.json").write_text(json.dumps(case))
    cells = np.array([[[1, 0], [0, 1]]], dtype=np.int64)
    np.savez(
        tmp_path / "inputs.npz",
        images=torch.randn(1, 3, 64, 64).numpy(),
        mask=cells.repeat(8, 1).repeat(8, 2),
    )
    np.savez(tmp_path / "outputs.npz")
    produced = maelite_swin.run(GoldenCase.load(tmp_path))
    assert produced["loss"] > 0
    assert produced["latent"].shape == (1, 4, 48)
    gradients = {key for key in produced if key.startswith("grad:")}
    assert "grad:encoder.norm.weight" in gradients
    assert "grad:encoder.layers.2.downsample.norm.weight" in gradients
    assert not any(key.startswith("grad:encoder.layers.3.") for key in gradients)
