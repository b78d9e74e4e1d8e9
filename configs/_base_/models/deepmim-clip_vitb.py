# DeepMIM on CLIP features, ViT-B/16: 2 - 2 cos to the projected patch features of a
# frozen CLIP tower at every level.
_base_ = "./mim_vitb.py"

model = dict(
    type="DeepMIM",
    backbone=dict(taps=(5, 7, 9)),
    neck=dict(depth=4),
    target_generator=dict(
        _delete_=True,
        type="CLIPTarget",
        # OpenAI's ViT-B/16 as downloaded (a TorchScript archive), a state dict of it,
        # an open_clip file, or a Hugging Face folder.
        checkpoint="checkpoints/ViT-B-16.pt",
        # Width of the features in that file: with it the model can be built without the
        # file, to make features and load checkpoints. For another tower, set it too.
        dims=512,
    ),
    head=dict(criterion="cosine"),
)
