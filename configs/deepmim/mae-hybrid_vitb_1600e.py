# DeepMIM on hybrid targets, ViT-B/16, 1600 epochs on ImageNet-1K: shallow levels are
# compared with a mix of the true pixels and what an already trained MAE predicts.
# Paper: DeepMIM: Deep Supervision for Masked Image Modeling,
# https://arxiv.org/abs/2303.08817, hybrid targets.
# Expected: no figure of the paper is known to us.
# Not reproduced here.
# Global batch size: 4096 (the official run: 32 GPUs x 128); kept on fewer GPUs by
# accumulation.
# Command: tools/dist_train.sh configs/deepmim/mae-hybrid_vitb_1600e.py 8 \
#   --cfg-options model.target_generator.checkpoint=MAE_WITH_DECODER.pth
# Cost: on top of DeepMIM on pixels the frozen MAE's forward pass; not measured here.
# Known deviations: no official code exists. The paper's notes give the shares alpha;
# that x and x_hat are both in the space the MAE was trained in (patches normalised)
# is our reading. bf16 instead of fp16 with loss scaling.
_base_ = [
    "../_base_/models/deepmim-hybrid_vitb.py",
    "../_base_/recipes/pretrain_pixels.py",
]

train_cfg = dict(max_epochs=1600)
