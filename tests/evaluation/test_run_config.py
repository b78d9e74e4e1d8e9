"""The config next to a checkpoint is parsed, not executed: it may be a download."""

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from samples import ROOT, tiny_model

from mim_plugins.evaluation.encoder import load_encoder
from mim_plugins.evaluation.run_config import config_next_to


@pytest.fixture
def downloaded(tmp_path):
    """Writes a config next to a checkpoint; returns the path of the checkpoint."""
    state = MODELS.build(tiny_model()).state_dict()
    torch.save({"state_dict": state}, tmp_path / "x.pth")

    def write(text):
        (tmp_path / "modeling.py").write_text(text)
        return str(tmp_path / "x.pth")

    return write


MODEL = f"model = {tiny_model()!r}\n"


@pytest.mark.parametrize(
    "text",
    [
        f"import os\n{MODEL}RUN",
        f"{MODEL}x = [RUN]",
        f"{MODEL}x = dict(a=RUN)",
        f"{MODEL}x = {{'a': 1, **RUN}}",
        f"{MODEL}def f(x=RUN): pass",
        f"{MODEL}x: RUN = 1",
        f"{MODEL}x[RUN] = 1",
    ],
)
def test_code__is_refused_and_not_run(downloaded, tmp_path, text):
    ran = tmp_path / "was_run"
    checkpoint = downloaded(text.replace("RUN", f"open({str(ran)!r}, 'w')"))
    with pytest.raises(ValueError, match=r"None of it was executed.*--model .*\.py"):
        load_encoder(None, checkpoint)
    assert not ran.exists()


def test_text_that_mmengine_fills_in__stays_text(downloaded, tmp_path):
    """What is put in for a variable's name could end the text and be code."""
    ran = str(tmp_path / "was_run").replace("/", r"\057")
    text = rf"x = '{{{{$NONE:\047;open(\042{ran}\042,\042w\042)#}}}}'"
    _, config = config_next_to(downloaded(MODEL + text))
    assert config.x.startswith("{{$NONE:';open(")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_base_ = ['./other.py']\n", "names other files"),
        ("custom_imports = dict(imports=['modeling'])\n", "it imports modeling"),
        ("model = dict(type='subprocess.Popen', args='id')", "'subprocess.Popen'"),
        ("test_pipeline = [dict(type='mmengine.load', file='x.pkl')]", "mmengine.load"),
        ("model = dict(type='DeepMIM', _scope_='modeling')", "a _scope_ of its own"),
        ("model = dict(", "is not accepted as the config"),
    ],
)
def test_names_that_would_be_imported__are_refused(downloaded, text, message):
    with pytest.raises(ValueError, match=message):
        config_next_to(downloaded(text))


@pytest.mark.parametrize(
    "name",
    [
        "distilled/mae_vitt_400e",
        "localmim/benchmarks/swinb_hog_100e_finetune-100e_in1k",
    ],
)
def test_dumped_config_of_a_run__is_read_as_mmengine_reads_it(tmp_path, name):
    Config.fromfile(ROOT / "configs" / f"{name}.py").dump(str(tmp_path / "run.py"))
    path, config = config_next_to(str(tmp_path / "epoch_1.pth"))
    assert path == str(tmp_path / "run.py")
    assert config.to_dict() == Config.fromfile(path).to_dict()
