# MIRL, ViT-B-24/16: six segments of 4 blocks. Unverified: the released code has no
# pre-training model of this size; segments and decoders are ViT-B-48's, scaled.
_base_ = "./mirl_vitb48.py"

model = dict(backbone=dict(arch=dict(num_layers=24), taps=(3, 7, 11, 15, 19)))
