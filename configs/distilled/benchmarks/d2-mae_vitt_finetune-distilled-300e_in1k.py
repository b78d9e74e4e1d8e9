# Fine-tuning of D2-MAE-Tiny (ViT-Tiny/16, 12 heads) with a supervised teacher, 300
# epochs on ImageNet-1K: the class token learns what a RegNetY-16GF takes an image for.
# Papers: https://arxiv.org/abs/2012.12877 (DeiT), section 4;
# https://arxiv.org/abs/2404.12210, whose code has it as an option, on its recipe in
# MAE's style: that of mae_vitt_finetune-100e_in1k.py.
# Expected: unknown (none published), not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/distilled/benchmarks/d2-mae_vitt_finetune-distilled-300e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/classifier_vitt-mae.py",
    "../../_base_/recipes/finetune_lightweight-mae.py",
]

pretrained = "work_dirs/distilled/d2-mae_vitt_400e/epoch_400.pth"

model = dict(
    type="DistilledClassifier",
    # timm downloads its weights; it needs timm >= 1.0.
    teacher=dict(
        type="TimmClassifier", model_name="regnety_160.deit_in1k", pretrained=True
    ),
    # The head norms the tokens.
    backbone=dict(out_type="raw", init_cfg=dict(checkpoint=pretrained)),
    head=dict(type="TokenDistillationHead", alpha=0.5, kind="hard"),
)
train_cfg = dict(max_epochs=300)
