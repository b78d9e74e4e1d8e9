# MIRL, ViT-B/16: six segments of 2 blocks. Unverified: the released code's model of
# this size cannot be built (block 23 of 12); segments and decoders are ViT-B-48's,
# scaled.
_base_ = "./mirl_vitb48.py"

model = dict(backbone=dict(arch=dict(num_layers=12), taps=(1, 3, 5, 7, 9)))
