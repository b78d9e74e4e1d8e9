"""The command line: a model and images in, pictures out."""

import runpy

import pytest
import torch
from mmpretrain.registry import MODELS
from PIL import Image
from samples import ROOT, tiny_model


def test_command__writes_pictures_or_says_why_not(tmp_path, capsys):
    main = runpy.run_path(str(ROOT / "tools" / "reconstruct.py"))["main"]
    config, checkpoint = tmp_path / "tiny.py", tmp_path / "tiny.pth"
    config.write_text(f"model = {tiny_model()!r}\n")
    torch.save({"state_dict": MODELS.build(tiny_model()).state_dict()}, checkpoint)
    Image.linear_gradient("L").save(tmp_path / "grey.png")
    given = [str(x) for x in (config, checkpoint, tmp_path / "grey.png")]
    out = tmp_path / "out"
    main([*given, "--out", str(out), "--gif", "--seed", "3", "--device", "cpu"])
    assert sorted(path.name for path in out.iterdir()) == [
        "grey_reconstruction.gif",
        "grey_reconstruction.png",
    ]
    assert capsys.readouterr().out.strip().endswith("grey_reconstruction.gif")
    with pytest.raises(
        SystemExit, match="^error: model.mask_sampler.mask_ratio must.*--debug shows"
    ):
        main([*given, "--out", str(out), "--mask-ratio", "2"])
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used"):
        main([*given, "--device", "nowhere", "--debug"])
