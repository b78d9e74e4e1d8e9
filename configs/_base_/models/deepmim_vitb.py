# DeepMIM on pixels, ViT-B/16: decoders of 4 blocks on blocks 6, 8, 10 (taps are
# zero-based) and on the last block.
_base_ = "./mim_vitb.py"

model = dict(type="DeepMIM", backbone=dict(taps=(5, 7, 9)), neck=dict(depth=4))
