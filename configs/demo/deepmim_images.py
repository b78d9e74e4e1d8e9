# The demo on one's own images: DeepMIM at 64x64 on a plain folder, sized for a CPU.
# A demonstration, no paper's experiment; `make demo DATA=/folder` runs it.
# Global batch size: 64; smaller batches are accumulated to it.
_base_ = "./mae_digits.py"

data_root = "data/images/"

model = dict(
    type="DeepMIM",
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        arch=dict(embed_dims=192, num_layers=6, num_heads=6, feedforward_channels=768),
        img_size=64,
        patch_size=8,
        in_channels=3,
        taps=(2, 3, 4),
    ),
    neck=dict(embed_dims=96, depth=1, num_heads=6),
)

train_pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(type="TensorRandomResizedCrop", scale=64, crop_ratio_range=(0.2, 1.0)),
    dict(type="DrawFlip", prob=0.5),
    dict(type="PackPretrainInputs"),
]
train_dataloader = dict(
    batch_size=64,
    dataset=dict(dataset=dict(data_root=data_root, pipeline=train_pipeline)),
)
auto_scale_lr = dict(base_batch_size=64)
