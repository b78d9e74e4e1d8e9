# D2-MAE on the ViT-Tiny/16 of mim_vitt.py: the decoder reads block 8, and the attention
# of a layer after the last block is compared with that of a frozen MAE on ViT-B.
_base_ = "./mim_vitt.py"

model = dict(
    type="DistilledMIM",
    # Zero-based: the eighth of 12.
    backbone=dict(final_block=7),
    teacher=dict(type="MIMVisionTransformer", arch="base", img_size=224, patch_size=16),
    # MAE ViT-B/16 of 1600 epochs: of MAE-Lite's or MAE's authors, or of
    # configs/mae/vitb_1600e.py.
    teacher_checkpoint="checkpoints/mae_base_1600e.pth.tar",
    # Layer 12, after the last; it is no part of the encoder.
    extra_block=True,
    distillation=[
        dict(
            type="AttentionDistillation",
            student_layers=(12,),
            teacher_layers=(11,),
            weight=1.0,
        )
    ],
)
