# A tracker small enough for a CPU, from nothing, on a folder of sequences in LaSOT's
# layout: <class>/<class>-<n>/{img/00000001.jpg, groundtruth.txt}. Four blocks of width
# 192, a template of 64 pixels, a search region of 128; one block eliminates tokens.
# Tracks all sequences of the folder in the test; sources.0.ann_file names a list of
# those to train on, one per line.
# Expected: on four short videos, see configs/distilled/tracking/README.md.
# Global batch size: 32 (one process).
# Command: python tools/train.py configs/demo/tracker_lasot-layout.py \
#   --cfg-options data_root=/sequences
_base_ = [
    "../_base_/models/tracker_vitt.py",
    "../_base_/datasets/tracking_lasot.py",
    "../_base_/recipes/tracking_300e.py",
]

model = dict(
    backbone=dict(
        arch=dict(embed_dims=192, num_layers=4, num_heads=12, feedforward_channels=768),
        img_size=128,
        template_size=64,
        search_size=128,
        elimination_blocks=(2,),
        keep_ratios=(0.7,),
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    head=dict(channels=64),
)

crop = {**_base_.train_pipeline[1], "sizes": (64, 128)}
train_pipeline = [
    _base_.train_pipeline[0],
    crop,
    *_base_.train_pipeline[2:],
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        dataset=dict(
            sources=[dict(type="LaSOTSequences", split="all")],
            num_pairs=3200,
            pipeline=train_pipeline,
        )
    ),
)
test_dataloader = dict(dataset=dict(source=dict(split="all")))

warmup_epochs = 1
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(custom_keys={}, _delete_=True),
    clip_grad=dict(max_norm=1.0),
)
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
        eta_min_ratio=1e-2,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=16)
auto_scale_lr = dict(base_batch_size=32)
custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(type="KeepRateHook", start=2, end=6, final=0.7),
]
