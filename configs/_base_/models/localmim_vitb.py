# LocalMIM on HOG, ViT-B/16: blocks 2, 4, 10 and 12 (taps are zero-based, the last block
# needs none) reconstruct cells of 4, 8, 16 and 32 pixels.
_base_ = "./mim_vitb.py"

model = dict(
    type="LocalMIM",
    backbone=dict(taps=(1, 3, 9)),
    neck=dict(
        _delete_=True, type="MultiScaleDecoder", embed_dims=256, depth=1, num_heads=8
    ),
    target_generator=dict(
        _delete_=True, type="HOGTarget", nbins=9, cell_size=(4, 8, 16, 32)
    ),
)
