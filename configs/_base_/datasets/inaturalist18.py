# iNaturalist 2018, 8142 species. 8 GPUs x 64 = 512 images per step; crop of 8-100 % of
# the area to 224 pixels and flip. Test: short edge 256, bicubic, centre 224.
# data_root has train_val2018/ and the lists train2018.txt and val2018.txt, a path and a
# label in each line, which the published train2018.json and val2018.json become by
#   import json
#   for part in ("train2018", "val2018"):
#       content = json.load(open(f"{part}.json"))
#       with open(f"{part}.txt", "w") as lines:
#           for image, label in zip(content["images"], content["annotations"]):
#               assert image["id"] == label["image_id"]
#               print(image["file_name"], label["category_id"], file=lines)
data_root = "data/inaturalist2018"

train_pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(type="TensorRandomResizedCrop", scale=224),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(
        type="ResizeEdge",
        scale=256,
        edge="short",
        backend="pillow",
        interpolation="bicubic",
    ),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="EpochSampler", shuffle=True),
    dataset=dict(
        type="SeededDataset",
        # The run stops when more than 1 % of the images cannot be read.
        max_corrupt_ratio=0.01,
        dataset=dict(
            type="CustomDataset",
            data_root=data_root,
            ann_file="train2018.txt",
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CustomDataset",
        data_root=data_root,
        ann_file="val2018.txt",
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type="Accuracy", topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
