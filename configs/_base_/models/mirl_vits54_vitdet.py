# MIRL's ViT-S-54/16 as the backbone of a detector, ours: a part that configs on the
# models mask-rcnn_vitdet.py and mask-rcnn_cascade_vitdet.py put in.
mirl_vitdet = dict(
    arch=dict(embed_dims=384, num_layers=54, num_heads=12, feedforward_channels=1536),
    # The last block of each quarter.
    global_blocks=(12, 26, 39, 53),
    # Every block is computed again in the backward pass: 54 of them fill a GPU.
    with_cp=True,
)
# 0.7 over 12 blocks is as much as this over 54.
mirl_layer_decay = 0.7 ** (13 / 55)
