# LaSOT, GOT-10k, COCO and TrackingNet, equally often; validation on pairs of GOT-10k,
# test on LaSOT's 280 test sequences. data_root has lasot/, got10k/{train,...},
# coco/{annotations,train2017} and trackingnet/TRAIN_{0..11}; one that lies elsewhere:
#   --cfg-options train_dataloader.dataset.dataset.sources.1.data_root=/data2
# The two lists of GOT-10k's training sequences, without those that VOT tests on, are
# those of pytracking and OSTrack (lib/train/data_specs); put them into got10k/train.
_base_ = ["tracking_lasot.py"]

data_root = "data"

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            data_root=data_root,
            sources=[
                dict(type="LaSOTSequences", data_prefix="lasot", split="train"),
                dict(
                    type="GOT10kSequences",
                    data_prefix="got10k/train",
                    ann_file="got10k_vot_train_split.txt",
                ),
                # Template and search region are crops of one image.
                dict(
                    type="COCOStills",
                    data_prefix="coco",
                    ann_file="annotations/instances_train2017.json",
                    images="train2017",
                    min_side=50,
                ),
                dict(type="TrackingNetSequences", data_prefix="trackingnet"),
            ],
        ),
    ),
)
# The same 10,000 pairs every time.
val_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="EpochSampler", shuffle=False),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="TrackingPairs",
            data_root=data_root,
            sources=[
                dict(
                    type="GOT10kSequences",
                    data_prefix="got10k/train",
                    ann_file="got10k_vot_val_split.txt",
                ),
            ],
            num_pairs=10000,
            max_gap=200,
            pipeline=[
                _base_.train_pipeline[1],
                dict(type="PackPair"),
            ],
        ),
    ),
)
val_evaluator = dict(type="PairIoU")
val_cfg = dict()
test_dataloader = dict(
    dataset=dict(data_root=data_root, source=dict(data_prefix="lasot"))
)
