# The 100-epoch form of pretrain_300e.py, with 10 epochs of warm-up.
_base_ = "./pretrain_300e.py"

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
        end=100,
        T_max=90,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=100)
