# Fine-tuning of a DeepMIM or MAE pixel model, ViT-B/16, 100 epochs on ImageNet-1K.
# Papers: DeepMIM, https://arxiv.org/abs/2303.08817 (84.2 top-1 after 1600 epochs of
# pre-training, 83.4 after 300, the paper's); its recipe for the pixel model is not
# published, so this is MAE's (https://arxiv.org/abs/2111.06377, appendix A.1; learning
# rate, layer decay and random erasing by the fine-tuning page of its released code).
# Not reproduced here.
# Global batch size: 1024 (8 GPUs x 128); kept on fewer GPUs by accumulation.
# Command: tools/dist_train.sh \
#   configs/deepmim/benchmarks/mae_vitb_finetune-100e_in1k.py 8 \
#   --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth
_base_ = [
    "../../_base_/models/classifier_vitb.py",
    "../../_base_/recipes/finetune.py",
]

pretrained = "work_dirs/deepmim/mae_vitb_1600e/epoch_1600.pth"

model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
