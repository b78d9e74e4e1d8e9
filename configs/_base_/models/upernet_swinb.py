# UperNet on Swin-B, windows of 7, as LocalMIM's code for segmentation has it: maps that
# windows do not divide are padded, every stage has a norm of its own, and the test
# hands over whole images.
_base_ = "./upernet_vitb.py"

model = dict(
    # Whole images need no padding to one size.
    data_preprocessor=dict(test_cfg=None),
    backbone=dict(
        _delete_=True,
        type="mmpretrain.MIMSwinTransformer",
        arch="base",
        # Images of any size will do; this one decides no parameter.
        img_size=512,
        window_size=7,
        pad_small_map=True,
        drop_path_rate=0.3,
        norm_eps=1e-5,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(type="Pretrained", checkpoint=None, prefix="backbone."),
    ),
    neck=None,
    decode_head=dict(in_channels=[128, 256, 512, 1024], channels=512),
    auxiliary_head=dict(in_channels=512),
    test_cfg=dict(_delete_=True, mode="whole"),
)

# For optim_wrapper of a config: as Swin's own recipe, the official one decays biases of
# convolutions, and neither norms nor tables of relative positions.
swin_optim_wrapper = dict(
    optimizer=dict(lr=6e-5, weight_decay=0.01),
    paramwise_cfg=dict(
        layer_decay_rate=1.0,
        flat_decay_mult=1.0,
        bias_decay_mult=1.0,
        custom_keys={
            "norm": dict(decay_mult=0.0),
            "relative_position_bias_table": dict(decay_mult=0.0),
        },
    ),
)
