"""A step needs nothing of the host but what is listed here, whatever the method.

Every kind of config at its full width; of all configs with
``python tests/stand_in_device.py configs/*/*.py configs/*/*/*.py``.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from packaging.version import Version
from samples import ROOT

CONFIGS = [
    "deepmim/mae-clip_vitb_300e",
    "deepmim/mae-hybrid_vitb_300e",
    "localmim/vits_hog_1600e",
    "localmim/swinb_hog_100e",
    "mirl/vitb_300e",
    "distilled/d2-mae_vitt_400e",
    "distilled/d2-simmim_swint_400e",
    "distilled/mae-lite_hierat_400e",
    "distilled/benchmarks/mae_vitt_linear-90e_in1k",
    "distilled/benchmarks/d2-mae_vitt_finetune-distilled-300e_in1k",
    "distilled/benchmarks/d2-mae_vitt_finetune-rpe-1000e_in1k",
    "distilled/benchmarks/d2-simmim_swint_finetune-300e_in1k",
    "distilled/benchmarks/mae-lite_hierat_finetune-300e_in1k",
    "deepmim/detection/mae_vits_mask-rcnn_coco",
    "distilled/detection/simmim_swint_mask-rcnn_coco",
    "distilled/detection/mae_hierat_mask-rcnn_coco",
    "deepmim/segmentation/mae_vits_upernet_ade20k",
    "distilled/segmentation/mae_vitt_semantic-fpn_camvid",
]

# Where a step waits for the device, or the device for a copy, and why it may.
ALLOWED = {
    "number read: optimizer/optimizer_wrapper.py: float(grad))": "mmengine logs the "
    "norm of clipped gradients",
    "number read: optimizers/lars.py: weight_norm = torch.norm(p).item()": "LARS "
    "of mmpretrain, which has the two parameters of a linear probe",
    "number read: optimizers/lars.py: grad_norm = torch.norm(d_p).item()": "likewise",
    "to the device: base_model/data_preprocessor.py: return data.to(self.device, "
    "non_blocking=self._non_blocking)": "mmpretrain's preprocessor of classifiers has "
    "no such option",
    "to the device: utils/data_preprocessor.py: batch_label = "
    "batch_label.to(self.device)": "likewise, the labels",
}


@pytest.mark.skipif(
    Version(torch.__version__) < Version("2.10"),
    reason="torch has a stand-in for accelerators since 2.10",
)
def test_step__stays_on_the_device() -> None:
    paths = [str(ROOT / f"configs/{name}.py") for name in CONFIGS]
    run = subprocess.run(
        [sys.executable, ROOT / "tests/stand_in_device.py", *paths],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        check=True,
    )
    results = [json.loads(x) for x in run.stdout.splitlines() if x.startswith("{")]
    assert len(results) == len(CONFIGS)
    assert [result for result in results if "error" in result] == []
    # Nothing else, and each is needed.
    met = {line for result in results for line in result["meetings"]}
    assert met == set(ALLOWED)
