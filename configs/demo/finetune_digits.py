# The demo's few-label fine-tuning: the whole encoder on 10 labelled digits per class.
# A demonstration on the CPU, no paper's experiment; `make demo` runs it.
# Global batch size: 50.
_base_ = ["../_base_/default_runtime.py"]

data_root = "work_dirs/demo/data/"

model = dict(
    type="MIMImageClassifier",
    data_preprocessor=dict(num_classes=10, mean=[77.8], std=[83.5], to_rgb=False),
    backbone=dict(
        type="VisionTransformer",
        arch=dict(embed_dims=96, num_layers=6, num_heads=4, feedforward_channels=384),
        img_size=16,
        patch_size=4,
        in_channels=1,
        out_type="avg_featmap",
        final_norm=False,
    ),
    head=dict(
        type="LinearClsHead",
        num_classes=10,
        in_channels=96,
        init_cfg=dict(type="TruncNormal", layer="Linear", std=2e-5),
    ),
)

train_pipeline = [
    dict(type="LoadImageFromFile", color_type="grayscale"),
    dict(type="TensorRandomResizedCrop", scale=16, crop_ratio_range=(0.6, 1.0)),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", color_type="grayscale"),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=50,
    num_workers=0,
    sampler=dict(type="EpochSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="CustomDataset",
            data_root=data_root,
            data_prefix="train",
            pipeline=train_pipeline,
        ),
    ),
)
test_dataloader = dict(
    batch_size=360,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="CustomDataset",
        data_root=data_root,
        data_prefix="test",
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type="Accuracy", topk=1)
test_cfg = dict()

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=0.75, flat_decay_mult=0.0, bias_decay_mult=0.0),
)
warmup_epochs = 5
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-3,
        begin=0,
        end=warmup_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        begin=warmup_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=40)
auto_scale_lr = dict(base_batch_size=50)
default_hooks = dict(checkpoint=dict(type="AtomicCheckpointHook", interval=40))
