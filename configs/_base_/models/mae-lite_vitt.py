# MAE-Lite on the ViT-Tiny/16 of mim_vitt.py: the attention of the last block is also
# compared with that of a frozen MAE on ViT-B.
_base_ = "./mim_vitt.py"

model = dict(
    type="DistilledMIM",
    teacher=dict(type="MIMVisionTransformer", arch="base", img_size=224, patch_size=16),
    # MAE ViT-B/16 of 1600 epochs: of MAE-Lite's or MAE's authors, or of
    # configs/mae/vitb_1600e.py.
    teacher_checkpoint="checkpoints/mae_base_1600e.pth.tar",
    # Layers are zero-based: the last of 12.
    distillation=[
        dict(
            type="AttentionDistillation",
            student_layers=(11,),
            teacher_layers=(11,),
            weight=1.0,
        )
    ],
)
