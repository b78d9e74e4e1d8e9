"""Classes of training, validation, test and k-NN data, and of the classifier."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.dataset import ConcatDataset
from mmengine.logging import MMLogger
from mmpretrain.registry import DATASETS, MODELS
from samples import TINY_ARCH
from toy_run import make_runner

from mim_plugins.datasets import SeededDataset
from mim_plugins.engine.checks.classes import check_classifier, check_same_classes


def images(root, *folders):
    for folder in folders:
        (root / folder).mkdir(parents=True)
        cv2.imwrite(str(root / folder / "1.png"), np.zeros((8, 8, 3), np.uint8))
    return root


def dataset(root, **kwargs):
    return DATASETS.build(
        dict(type="CustomDataset", data_root=str(root), pipeline=[], **kwargs)
    )


def classifier(outputs, **preprocessor):
    return MODELS.build(
        dict(
            type="ImageClassifier",
            data_preprocessor=preprocessor or None,
            backbone=dict(type="VisionTransformer", arch=TINY_ARCH, img_size=32),
            head=dict(type="LinearClsHead", num_classes=outputs, in_channels=24),
        )
    )


def test_validation_without_the_first_class_is_refused(tmp_path):
    train = SeededDataset(dataset(images(tmp_path / "train", "ant", "bee", "cat")))
    val = dataset(images(tmp_path / "val", "bee", "cat"))
    assert val.get_data_info(0)["gt_label"] == 0  # a bee, which is 1 in training
    with pytest.raises(ValueError, match=r"\(3 and 2\).*val_dataloader lacks ant"):
        check_same_classes(dict(train_dataloader=train, val_dataloader=val))
    # The way out that the message names.
    (tmp_path / "val" / "ant").mkdir()
    val = dataset(tmp_path / "val")
    assert val.get_data_info(0)["gt_label"] == 1
    check_same_classes(dict(train_dataloader=train, val_dataloader=val))


def test_as_many_classes_with_other_names_are_refused(tmp_path):
    train = dataset(images(tmp_path / "train", "ant", "bee"))
    val = dataset(images(tmp_path / "val", "bee", "cat"))
    with pytest.raises(ValueError, match="val lacks ant; train lacks cat"):
        check_same_classes(dict(train=train, val=val))
    # Names given in the config change nothing about the folders.
    names = dict(metainfo=dict(classes=["a", "b"]))
    pair = dict(train=dataset(train.data_root, **names))
    pair["val"] = dataset(val.data_root, **names)
    with pytest.raises(ValueError, match="val lacks ant"):
        check_same_classes(pair)


def test_hidden_folder_is_no_class(tmp_path):
    train = dataset(images(tmp_path / "train", "ant", "bee"))
    val = dataset(images(tmp_path / "val", "ant", "bee"))
    check_same_classes(dict(train=train, val=val))
    (tmp_path / "val" / ".ipynb_checkpoints").mkdir()
    val = dataset(tmp_path / "val")
    assert val.get_data_info(0)["gt_label"] == 1  # an ant
    with pytest.raises(ValueError, match="hidden folder .ipynb_checkpoints .*remove"):
        check_same_classes(dict(train=train, val=val))


def test_class_that_training_lacks_is_named(tmp_path):
    train = dataset(images(tmp_path / "train", "ant", "bee"))
    val = dataset(images(tmp_path / "val", "ant", "bee", "cat"))
    with pytest.raises(ValueError, match=r"\(2 and 3\).*train lacks cat"):
        check_same_classes(dict(train=train, val=val))


def test_names_in_another_order_than_the_folders_are_refused(tmp_path):
    images(tmp_path, "ant", "bee")
    with pytest.raises(ValueError, match=r"set classes=\('ant', 'bee'\)"):
        check_same_classes(dict(a=dataset(tmp_path, classes=["bee", "ant"])))
    check_same_classes(dict(a=dataset(tmp_path, classes=["Ants", "Bees"])))
    named = dict(metainfo=dict(classes="insects"))
    (tmp_path / "a.txt").write_text("ant/1.png 0\n")
    with pytest.raises(ValueError, match="'insects' is a text"):
        check_same_classes(dict(a=dataset(tmp_path, ann_file="a.txt", **named)))


def test_joined_data_sets_are_compared_with_each_other(tmp_path):
    joined = ConcatDataset(
        [
            dataset(images(tmp_path / "a", "ant", "bee")),
            dataset(images(tmp_path / "b", "bee", "cat"), serialize_data=False),
        ],
        ignore_keys="classes",
    )
    with pytest.raises(ValueError, match="train lacks ant"):
        check_same_classes(dict(train=joined))


def test_lists_of_images_have_no_names_to_compare(tmp_path):
    train = dataset(images(tmp_path, "ant", "bee"))
    (tmp_path / "val.txt").write_text("bee/1.png 1\n")
    check_same_classes(dict(train=train, val=dataset(tmp_path, ann_file="val.txt")))


def test_head_with_too_few_outputs_is_refused(tmp_path):
    data = SeededDataset(dataset(images(tmp_path, "ant", "bee", "cat")))
    with pytest.raises(
        ValueError, match="train has 3 classes .*is 2: .*head.num_classes=3$"
    ):
        check_classifier("train", data, classifier(2))
    mixing = classifier(2, num_classes=2)
    with pytest.raises(ValueError, match="data_preprocessor.num_classes=3$"):
        check_classifier("train", data, mixing)
    with pytest.raises(ValueError, match="num_classes is 3, .* is 2: set both"):
        check_classifier("train", data, classifier(3, num_classes=2))
    check_classifier("train", data, classifier(3))


def test_head_with_more_outputs_is_warned_about(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(MMLogger.get_current_instance(), "warning", warnings.append)
    check_classifier("train", dataset(images(tmp_path, "ant", "bee")), classifier(1000))
    assert "2 classes, the classifier 1000 outputs" in warnings[0]


def test_labels_of_a_list_beyond_the_head_are_refused(tmp_path):
    images(tmp_path, "ant")
    (tmp_path / "val.txt").write_text("ant/1.png 0\nant/1.png 7\n")
    data = dataset(tmp_path, ann_file="val.txt")
    found = "val.txt has the label 7 .of .*ant/1.png.*0 to 2.*classes=8"
    with pytest.raises(ValueError, match=found):
        check_classifier("val", data, classifier(3))
    check_classifier("val", data, classifier(8))
    # ImageNet's images of two classes: the list counts, not the 1,000 names.
    (tmp_path / "val.txt").write_text("ant/1.png 0\nant/1.png 1\n")
    some = dict(type="ImageNet", data_root=str(tmp_path), ann_file="val.txt")
    check_classifier("val", DATASETS.build(dict(some, pipeline=[])), classifier(2))


def test_test_data_are_compared_with_the_checkpoint(tmp_path):
    test = dataset(images(tmp_path, "bee", "cat"))
    with pytest.raises(ValueError, match="test_dataloader lacks ant"):
        check_same_classes(dict(test_dataloader=test), ("ant", "bee", "cat"))
    check_same_classes(dict(test_dataloader=test), ["bee", "cat"])
    check_same_classes(dict(test_dataloader=test), None)


def run(folder, outputs, **changes):
    """A run that fine-tunes on folders of classes."""
    steps = [
        dict(type="LoadImageFromFile"),
        dict(type="PackInputs"),
    ]

    def loader(part):
        data = dict(data_root=str(folder / part), pipeline=steps)
        return dict(
            batch_size=1,
            num_workers=0,
            dataset=dict(type="CustomDataset", **data),
            sampler=dict(type="DefaultSampler", shuffle=False),
            collate_fn=dict(type="default_collate"),
        )

    backbone = dict(type="VisionTransformer", arch=TINY_ARCH, img_size=8, patch_size=4)
    config = dict(
        model=dict(
            type="ImageClassifier",
            backbone=backbone,
            head=dict(type="LinearClsHead", num_classes=outputs, in_channels=24),
        ),
        train_dataloader=loader("train"),
        custom_hooks=[dict(type="CheckInputHook")],
    )
    for part in ("val", "test"):
        config[f"{part}_dataloader"] = loader(part)
        config[f"{part}_evaluator"] = dict(type="Accuracy")
        config[f"{part}_cfg"] = dict()
    return make_runner(folder, **config | changes)


def test_run__ends_before_the_first_step(tmp_path):
    images(tmp_path / "train", "ant", "bee", "cat")
    images(tmp_path / "val", "bee", "cat")
    images(tmp_path / "test", "ant", "bee", "cat")
    with pytest.raises(ValueError, match="val_dataloader lacks ant"):
        run(tmp_path, 3).train()
    images(tmp_path / "val", "ant")
    with pytest.raises(ValueError, match="set --cfg-options model.head.num_classes=3"):
        run(tmp_path, 2).train()
    runner = run(tmp_path, 3)
    runner.train()
    # A test of its own, on data without the first class.
    (tmp_path / "test" / "ant").rename(tmp_path / "away")
    checkpoint = str(Path(runner.work_dir) / "epoch_2.pth")
    with pytest.raises(ValueError, match="test_dataloader lacks ant"):
        run(tmp_path, 3, load_from=checkpoint).test()


def test_test_set_in_another_order_than_the_checkpoint_is_refused(tmp_path):
    """Names come from the config alone, so that it has to say them in one order."""
    images(tmp_path, "ant", "bee")
    (tmp_path / "list.txt").write_text("ant/1.png 0\nbee/1.png 1\n")

    def test_set(*names):
        return dict(test=dataset(tmp_path, ann_file="list.txt", classes=list(names)))

    check_same_classes(test_set("ant", "bee"), ("ant", "bee"))
    with pytest.raises(ValueError, match="order differs, 0 is ant and bee"):
        check_same_classes(test_set("bee", "ant"), ("ant", "bee"))


def test_resumed_training_on_other_classes_is_refused(tmp_path):
    images(tmp_path / "train", "ant", "bee", "cat")
    for part in ("val", "test"):
        images(tmp_path / part, "ant", "bee", "cat")
    runner = run(tmp_path, 3)
    runner.train()
    checkpoint = str(Path(runner.work_dir) / "epoch_2.pth")
    for part in ("train", "val"):
        (tmp_path / part / "cat").rename(tmp_path / part / "dog")
    with pytest.raises(ValueError, match="checkpoint's training and train_dataloader"):
        run(tmp_path, 3, load_from=checkpoint, resume=True).train()
    run(tmp_path, 3, load_from=checkpoint).train()  # fine-tunes
