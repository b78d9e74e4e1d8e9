"""The plain reference computes what the official code computed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dev.benchmarks.reference import ReferenceMAE

ROOT = Path(__file__).parents[3]
GOLDENS = (ROOT.parent / "shared" / "goldens", ROOT / "tests" / "goldens")
# The official code taps the residual stream after its 6th, 8th and 10th block.
DEEPMIM_TAPS = (5, 7, 9)


def golden(name: str) -> Path:
    for root in GOLDENS:
        if (root / name / "case.json").exists():
            return root / name
    pytest.skip(f"golden case {name} is neither in {GOLDENS[0]} nor in {GOLDENS[1]}")


def build(model: dict, mask_ratio: float) -> ReferenceMAE:
    unused = ("norm_layer", "decoder_pred_out")
    arguments = {k: v for k, v in model.items() if k not in unused}
    return ReferenceMAE(**arguments, mask_ratio=mask_ratio, taps=DEEPMIM_TAPS)


@pytest.mark.parametrize("variant", ["mae_pixel", "mae_pixel_no_norm"])
def test_reference_equals_official_outputs_and_gradients(variant):
    safetensors = pytest.importorskip("safetensors.torch")
    folder = golden(f"deepmim/{variant}")
    case = json.loads((folder / "case.json").read_text())
    inputs, expected = (
        {k: torch.from_numpy(v) for k, v in np.load(folder / f"{name}.npz").items()}
        for name in ("inputs", "outputs")
    )
    model = build(case["model"], case["mask_ratio"])
    fresh_positions = model.pos_embed.clone(), model.decoder_pos_embed.clone()
    model.load_state_dict(
        safetensors.load_file(folder / "weights.safetensors"), strict=True
    )
    # The stored tables are the official initial values.
    assert torch.equal(model.pos_embed, fresh_positions[0])
    assert torch.equal(model.decoder_pos_embed, fresh_positions[1])

    output = model(inputs["images"], inputs["noise"])
    output.loss.backward()
    actual = {
        "loss": output.loss,
        "mask": output.mask,
        "ids_restore": output.ids_restore,
        "target": output.target,
    }
    for stem, values in (
        ("latent", output.latents),
        ("pred", output.preds),
        ("loss", output.losses),
    ):
        actual |= {f"{stem}{i}": value for i, value in enumerate(values, start=1)}
    parameters = dict(model.named_parameters())
    for key in expected:
        if key.startswith("grad:"):
            actual[key] = parameters[key.removeprefix("grad:")].grad

    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        bound = 1e-6 * (1 + value.abs().max())
        assert (actual[key] - value).abs().max() <= bound, key


def test_one_level_has_the_key_names_of_mae():
    model = ReferenceMAE(
        img_size=(8, 16),
        patch_size=4,
        embed_dim=8,
        depth=1,
        num_heads=2,
        decoder_embed_dim=8,
        decoder_depth=1,
        decoder_num_heads=2,
    )
    decoder_keys = {k for k in model.state_dict() if not k.startswith("blocks")}
    assert {"mask_token", "decoder_embed.weight", "decoder_norm.bias"} < decoder_keys
    assert "decoder_blocks.0.attn.qkv.weight" in decoder_keys
    output = model(torch.rand(2, 3, 8, 16))
    assert output.preds[0].shape == (2, 1 + 8, 4 * 4 * 3)
    assert output.mask.sum(dim=1).tolist() == [6, 6]


def test_constant_patches_have_a_finite_target():
    model = ReferenceMAE(
        img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2, decoder_depth=1
    )
    assert torch.equal(model.target(torch.ones(1, 3, 8, 8)), torch.zeros(1, 4, 48))
