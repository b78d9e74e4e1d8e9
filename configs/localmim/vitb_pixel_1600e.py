# LocalMIM on pixels, ViT-B/16, 1600 epochs on ImageNet-1K: ours.
# Paper: Masked Image Modeling with Local Multi-Scale Reconstruction,
# https://arxiv.org/abs/2303.05251, which has pixels for Swin alone.
# Expected: nothing; neither paper nor official code has such a model.
# Global batch size: 2048 (8 GPUs x 256, as for HOG); kept on fewer GPUs by
# accumulation.
# Command: tools/dist_train.sh configs/localmim/vitb_pixel_1600e.py 8
# Cost: not measured.
# Known deviations: the whole target is ours: pixels of the cells that HOG has,
# normalised per cell as the official Swin model; recipe of vitb_hog_1600e.
_base_ = [
    "../_base_/models/localmim_vitb.py",
    "../_base_/recipes/pretrain_pixels.py",
]

model = dict(
    target_generator=dict(
        _delete_=True, type="PixelTarget", norm_pix=True, cell_size=(4, 8, 16, 32)
    )
)

train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=2e-4 * 2048 / 256))
param_scheduler = [
    _base_.param_scheduler[0],
    {**_base_.param_scheduler[1], "eta_min": 1e-6},
]
train_cfg = dict(max_epochs=1600)
auto_scale_lr = dict(base_batch_size=2048)
