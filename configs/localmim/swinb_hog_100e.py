# LocalMIM on HOG, Swin-B with windows of 7, 100 epochs on ImageNet-1K.
# Paper: Masked Image Modeling with Local Multi-Scale Reconstruction,
# https://arxiv.org/abs/2303.05251, 100-epoch recipe of the official README.
# Expected: no figure of the paper is known to us. Not reproduced here.
# Global batch size: 2048 (8 GPUs x 256, as the 400-epoch run); kept on fewer GPUs by
# accumulation.
# Command: tools/dist_train.sh configs/localmim/swinb_hog_100e.py 8
# Cost: 1.1 GPU hours per epoch on V100 without data loading (110 in all), by the
# official README; not measured here.
# Known deviations: bf16 instead of fp16 with loss scaling; targets always in fp32.
_base_ = [
    "../_base_/models/localmim_swinb.py",
    "../_base_/recipes/pretrain_features.py",
]

train_dataloader = dict(batch_size=256)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4 * 2048 / 256),
    # Besides norms and biases, bias tables and mask tokens are not decayed.
    paramwise_cfg=dict(
        custom_keys={
            "position_bias": dict(decay_mult=0.0),
            "token": dict(decay_mult=0.0),
        }
    ),
)
warmup_epochs = 10
param_scheduler = [
    {**_base_.param_scheduler[0], "end": warmup_epochs},
    {**_base_.param_scheduler[1], "begin": warmup_epochs},
]
train_cfg = dict(max_epochs=100)
auto_scale_lr = dict(base_batch_size=2048)
