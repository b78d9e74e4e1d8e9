# MIRL's ViT-S-54/16 as the backbone of a detector, ours: a part that configs on the
# models mask-rcnn_vitdet.py and mask-rcnn_cascade_vitdet.py put in.
mirl_vitdet = dict(
    arch=dict(embed_dims=384, num_layers=54, num_heads=12, feedforward_channels=1536),
    # The last block of each quarter.
    global_blocks=(12, 26, 39, 53),
    # Every block is computed again in the backward pass: 54 of them fill a GPU.
    with_cp=True,
)
# The embedding keeps as much of the lr as 0.7 leaves it below 12 blocks.
mirl_layer_decay = 0.7 ** (13 / 55)
