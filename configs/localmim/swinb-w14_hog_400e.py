# LocalMIM on HOG, Swin-B with windows of 14, 400 epochs on ImageNet-1K: ours.
# Paper: Masked Image Modeling with Local Multi-Scale Reconstruction,
# https://arxiv.org/abs/2303.05251, whose code has this encoder, without a recipe: it is
# that of swinb_hog_400e.py.
# Expected: nothing; no result of this model is published.
# Global batch size: 2048 (8 GPUs x 256, as with windows of 7); the lr scales to the
# real one.
# Command: tools/dist_train.sh configs/localmim/swinb-w14_hog_400e.py 8
# Cost: not measured.
# Known deviations: bf16 instead of fp16 with loss scaling; targets always in fp32.
_base_ = [
    "../_base_/models/localmim_swinb.py",
    "../_base_/recipes/pretrain_features.py",
]

model = dict(backbone=dict(window_size=14))

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
train_cfg = dict(max_epochs=400)
auto_scale_lr = dict(base_batch_size=2048)
