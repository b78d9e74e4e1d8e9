# Labelled ImageNet for linear probing, 224 pixels, 8 GPUs x 2048 = 16384 images per
# step. Augmentation of MAE (appendix A.1, table 10): crop of 8-100 % of the area and
# flip. Test: short edge 256, bicubic, centre 224.
_base_ = "imagenet_finetune.py"

train_pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(type="TensorRandomResizedCrop", scale=224),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=2048, dataset=dict(dataset=dict(pipeline=train_pipeline))
)
