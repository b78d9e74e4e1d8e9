# LaSOT alone: pairs of frames of its 1,120 training sequences, 32 per GPU; the test
# tracks its 280 test sequences. data_root has the folders of the classes, as in
# airplane/airplane-1/img/00000001.jpg.
data_root = "data/lasot"

train_pipeline = [
    # Of both frames alike.
    dict(
        type="TransformBroadcaster",
        mapping=dict(img="img", gt_bboxes="gt_bboxes", img_shape="img_shape"),
        auto_remap=True,
        share_random_params=True,
        transforms=[
            dict(type="RandomGrayscale", prob=0.05, keep_channels=True),
            dict(type="RandomFlip", prob=0.5),
        ],
    ),
    dict(
        type="CropPair",
        sizes=(128, 256),
        factors=(2.0, 4.0),
        scale_jitter=(0.0, 0.25),
        centre_jitter=(0.0, 3.0),
    ),
    # Of each for itself.
    dict(
        type="TransformBroadcaster",
        mapping=dict(img="img", gt_bboxes="gt_bboxes", img_shape="img_shape"),
        auto_remap=True,
        transforms=[
            dict(type="ColorJitter", brightness=0.2),
            dict(type="RandomFlip", prob=0.5),
        ],
    ),
    dict(type="PackPair"),
]

# 4 GPUs x 32 = 128 pairs per step.
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="EpochSampler", shuffle=True),
    dataset=dict(
        type="SeededDataset",
        # The run stops when more than 1 % of the frames cannot be read.
        max_corrupt_ratio=0.01,
        dataset=dict(
            type="TrackingPairs",
            data_root=data_root,
            sources=[dict(type="LaSOTSequences", split="train")],
            num_pairs=60000,
            max_gap=200,
            pipeline=train_pipeline,
        ),
    ),
)

# Every item is a sequence; processes share the sequences.
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    collate_fn=dict(type="pseudo_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="TrackingSequences",
        data_root=data_root,
        source=dict(type="LaSOTSequences", split="test"),
    ),
)
test_evaluator = dict(type="OnePassMetric")
# Boxes go to tracking_results in the work directory (results_dir=...), a file per
# sequence; an evaluation that was interrupted goes on.
test_cfg = dict(type="SequenceTestLoop")
