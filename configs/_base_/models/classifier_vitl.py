# A classifier on ViT-L/16, fine-tuned as MAE's: classifier_vitb.py's, drop path 0.2.
_base_ = "./classifier_vitb.py"

model = dict(
    backbone=dict(arch="large", drop_path_rate=0.2), head=dict(in_channels=1024)
)
