"""The FLOP formulas give the published counts and those of torch's counter."""

from dataclasses import replace

import pytest
import torch
from mmpretrain.registry import MODELS
from samples import tiny_model
from torch.utils.flop_counter import FlopCounterMode

from dev.benchmarks import flops
from dev.benchmarks.dims import MIMDims
from dev.benchmarks.reference import ReferenceMAE
from mim_plugins.models import MIMVisionTransformer, attention

MAE_B = MIMDims()
MAE_L = MIMDims(width=1024, depth=24, heads=16, hidden=4096)
DEEPMIM_B = MIMDims(taps=(5, 7, 9), decoder_depth=4)


@pytest.mark.parametrize(
    ("dims", "gflop"), [(MAE_B, 58.456), (MAE_L, 124.226), (DEEPMIM_B, 91.857)]
)
def test_official_count_of_full_size_models(dims, gflop):
    assert flops.total(flops.mim_terms(dims)) / 1e9 == pytest.approx(gflop, abs=6e-4)


def test_frozen_parts_have_no_backward():
    assert flops.total([flops.frozen("teacher", 5.0)]) == 5.0


@pytest.mark.parametrize("taps", [(), (0, 1)])
def test_formula_equals_counter_on_the_reference(taps):
    dims = MIMDims(
        img_size=(32, 48),
        patch_size=8,
        in_channels=2,
        mask_ratio=0.6,
        width=24,
        depth=3,
        heads=4,
        hidden=60,
        taps=taps,
        decoder_width=16,
        decoder_depth=2,
        decoder_heads=2,
        decoder_hidden=40,
    )
    model = ReferenceMAE(
        img_size=(32, 48),
        patch_size=8,
        in_chans=2,
        embed_dim=24,
        depth=3,
        num_heads=4,
        decoder_embed_dim=16,
        decoder_depth=2,
        decoder_num_heads=2,
        mlp_ratio=2.5,
        mask_ratio=0.6,
        taps=taps,
    )
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.rand(3, 2, 32, 48)).loss.backward()
    assert counter.get_total_flops() == 3 * flops.total(flops.mim_terms(dims))


def test_lean_formula_equals_counter_on_our_model(monkeypatch):
    # The counter does not see every fused attention kernel.
    monkeypatch.setattr(attention, "attention_backend", lambda *args: "explicit")
    model = MODELS.build(
        dict(
            type="DeepMIM",
            mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.6),
            backbone=dict(
                type="MIMVisionTransformer",
                arch=dict(
                    embed_dims=24, num_layers=3, num_heads=4, feedforward_channels=60
                ),
                img_size=(32, 48),
                patch_size=8,
                taps=(1,),
            ),
            neck=dict(type="MIMDecoder", embed_dims=16, depth=2, num_heads=2),
            target_generator=dict(type="PixelTarget"),
            head=dict(type="ReconstructionHead"),
        )
    )
    dims = MIMDims.from_model(model)
    assert (dims.img_size, dims.hidden, dims.decoder_hidden) == ((32, 48), 60, 64)
    counter = FlopCounterMode(display=False)
    with counter:
        sum(model.loss(torch.rand(3, 3, 32, 48)).values()).backward()
    assert counter.get_total_flops() == 3 * flops.total(
        flops.mim_terms(dims, lean=True)
    )


@pytest.mark.parametrize("extra", [False, True], ids=["mae-lite", "d2"])
def test_lean_formula_of_distillation_equals_counter(extra, monkeypatch):
    monkeypatch.setattr(attention, "attention_backend", lambda *args: "explicit")
    teacher = MIMVisionTransformer(
        arch=dict(embed_dims=32, num_layers=3, num_heads=4, feedforward_channels=60),
        img_size=32,
        patch_size=8,
    )
    layers = dict(student_layers=(4 if extra else 3,), teacher_layers=(2,))
    cfg = tiny_model(taps=(), backbone=dict(final_block=1 if extra else None)) | dict(
        type="DistilledMIM",
        teacher=teacher,
        extra_block=extra,
        distillation=[dict(type="AttentionDistillation", **layers)],
    )
    model = MODELS.build(cfg)
    dims = MIMDims.from_model(model)
    counter = FlopCounterMode(display=False)
    with counter:
        sum(model.loss(torch.rand(1, 3, 32, 32)).values()).backward()
    terms = flops.mim_terms(dims, lean=True)
    assert counter.get_total_flops() == flops.total(terms)


def test_official_formula_of_distillation_for_the_papers_models():
    tiny = MIMDims(
        width=192,
        hidden=768,
        decoder_width=96,
        decoder_depth=1,
        decoder_heads=3,
        decoder_hidden=384,
    )
    mae = flops.total(flops.mim_terms(tiny))
    reads = dict(teacher=MIMDims(), student_reads=(11,), teacher_reads=(11,))
    lite = flops.total(flops.mim_terms(replace(tiny, **reads)))
    reads["student_reads"] = (12,)
    d2 = flops.total(flops.mim_terms(replace(tiny, **reads)))
    # Billions, of which the teacher's forward pass has 8.82.
    assert [round(x / 1e9, 2) for x in (mae, lite, d2)] == [2.05, 10.86, 10.9]


def test_unknown_parts_have_no_formula():
    with pytest.raises(ValueError, match="whose backbone is Linear"):
        model = torch.nn.Module()
        model.backbone = torch.nn.Linear(1, 1)
        MIMDims.from_model(model)
