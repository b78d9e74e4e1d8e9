# CIFAR-100, as CIFAR's arrays: images are RGB and in memory. 8 GPUs x 64 = 512 images
# per step; crop of 8-100 % of the area to 224 pixels and flip. Test: short edge 256,
# bicubic, centre 224.
data_root = "data/cifar100"

train_pipeline = [
    dict(type="TensorRandomResizedCrop", scale=224),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(
        type="ResizeEdge",
        scale=256,
        edge="short",
        backend="pillow",
        interpolation="bicubic",
    ),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="EpochSampler", shuffle=True),
    dataset=dict(
        type="SeededDataset",
        # The run stops when more than 1 % of the images cannot be read.
        max_corrupt_ratio=0.01,
        dataset=dict(
            type="CIFAR100", data_root=data_root, split="train", pipeline=train_pipeline
        ),
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CIFAR100", data_root=data_root, split="test", pipeline=test_pipeline
    ),
)
val_evaluator = dict(type="Accuracy", topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
