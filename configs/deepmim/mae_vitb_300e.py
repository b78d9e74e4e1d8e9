# DeepMIM on pixels, ViT-B/16, 300 epochs on ImageNet-1K.
# Paper: DeepMIM: Deep Supervision for Masked Image Modeling,
# https://arxiv.org/abs/2303.08817, section 3 and its ImageNet-1K comparison with MAE.
# Expected: 83.4 top-1 after 100 epochs of fine-tuning (the paper's, from third-party
# reading notes; MAE at 300 epochs: 82.6). Not reproduced here.
# Global batch size: 4096 (the official run: 32 GPUs x 128); kept on fewer GPUs by
# accumulation.
# Command: tools/dist_train.sh configs/deepmim/mae_vitb_300e.py 8
# Cost: the paper's notes give 115 hours on 32 V100 for 1600 epochs; not measured here.
# Known deviations: bf16 instead of fp16 with loss scaling; that the paper's pixel
# model normalises each patch (norm_pix) is likely but not stated in the released code,
# which holds the CLIP-target model only.
_base_ = [
    "../_base_/models/deepmim_vitb.py",
    "../_base_/recipes/pretrain_pixels.py",
]

train_cfg = dict(max_epochs=300)
