# Transfer of D2-MAE-Tiny (ViT-Tiny/16, 12 heads) to CIFAR-100 at 224 pixels, 50 epochs:
# little data, where the higher layers count.
# Papers: https://arxiv.org/abs/2205.14443 and its extension,
# https://arxiv.org/abs/2404.12210; documented command of the official code.
# Expected: unknown (in tables of the papers that were not at hand), not reproduced
# here.
# Global batch size: 512 (8 GPUs x 64); the lr scales to the real one.
# Command: tools/dist_train.sh \
#   configs/distilled/benchmarks/d2-mae_vitt_transfer-50e_cifar100.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = "./mae_vitt_finetune-300e_in1k.py"

model = dict(
    # CIFAR's images are RGB already.
    data_preprocessor=dict(num_classes=100, to_rgb=False),
    backbone=dict(init_cfg=dict(checkpoint="work_dirs/d2-mae_vitt_400e/epoch_400.pth")),
    head=dict(num_classes=100, loss=dict(use_soft=False)),
    train_cfg=None,
)

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
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type="CIFAR100",
            data_root="data/cifar100",
            split="train",
            pipeline=train_pipeline,
        )
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="CIFAR100",
        data_root="data/cifar100",
        split="test",
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type="SGD",
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=0.0,
    ),
    paramwise_cfg=dict(layer_decay_rate=0.75),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-9,
        begin=0,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        begin=10,
        end=50,
        T_max=40,
        eta_min_ratio=1e-6 / 0.1,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=50)
auto_scale_lr = dict(base_batch_size=512)
