# A classifier on Swin-B, windows of 7, as LocalMIM's code for fine-tuning has it.
_base_ = "./classifier_vitb.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="MIMSwinTransformer",
        arch="base",
        img_size=224,
        window_size=7,
        drop_path_rate=0.1,
        # The mean of the tokens is normed, in the neck, and not the tokens.
        norm_cfg=None,
        norm_eps=1e-6,
        mlp_norm_eps=1e-5,
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    neck=dict(type="PooledNorm", in_channels=1024),
    head=dict(in_channels=1024),
)
