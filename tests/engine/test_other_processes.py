"""Going on with another number of processes: the same images make a step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from test_exact_resume import by_iteration, config, folder, run  # noqa: F401

from mim_plugins.engine import InputError
from mim_plugins.engine.resuming.same_batch import keep_batch


def plain(batch_size: int, **changes: Any) -> Config:
    """Without what draws by process: dropout, mixed images."""
    return config(
        **{
            "model.backbone.drop_rate": 0.0,
            "model.backbone.drop_path_rate": 0.0,
            "model.train_cfg": None,
            "log_processor.window_size": 1,
            "train_dataloader.batch_size": batch_size,
        }
        | changes
    )


def as_of_two(path: str) -> str:
    """A checkpoint as two processes would have written it, with half the batch each."""
    saved = torch.load(path, weights_only=False)
    saved["meta"]["global_batch"]["processes"] = 2
    torch.save(saved, path)
    return path


def losses(work_dir: str) -> list[float]:
    (file,) = Path(work_dir).glob("*/vis_data/scalars.json")
    return [json.loads(line)["loss"] for line in file.read_text().splitlines()]


@pytest.mark.parametrize("changes", [{}, by_iteration()], ids=["epochs", "iterations"])
def test_one_process_after_two__accumulates_and_has_the_same_steps(
    folder: Path,  # noqa: F811
    changes: dict[str, Any],
) -> None:
    # Nine images are two batches of four an epoch, of 12 iterations or 6.
    if changes:
        changes = changes | {"train_cfg": dict(changes["train_cfg"], max_iters=6)}
    whole = run(plain(4, **changes), "whole")
    resumed = run(plain(2, **changes), "rest", as_of_two("whole/iter_3.pth"))
    assert (whole["meta"]["iter"], resumed["meta"]["iter"]) == (6, 12)
    pairs = torch.tensor(losses("rest")).view(-1, 2).mean(dim=1)
    torch.testing.assert_close(pairs, torch.tensor(losses("whole")[3:]))
    for key, value in whole["state_dict"].items():
        # AdamW enlarges rounding where gradients are close to 0.
        found = resumed["state_dict"][key]
        torch.testing.assert_close(found, value, rtol=1e-3, atol=2e-4)
    log = next(Path("rest").glob("*/*.log")).read_text()
    assert (
        "from 2 process(es) to 1, the global batch stays 4: 2 per process x 2 x 1 "
        "accumulated → 2 per process x 1 x 2 accumulated"
    ) in log
    assert "other settings" not in log


@pytest.mark.parametrize(
    ("per_process", "processes", "parts"),
    [
        (8, 1, (8, 2)),  # 16 in one process: accumulated
        (32, 1, (16, 1)),  # more memory than needed
        (8, 4, (4, 1)),
        (5, 2, (4, 2)),  # 5 do not divide 8
        (8, 8, (2, 1)),
    ],
)
def test_keep_batch__divides_it(
    tmp_path: Path, per_process: int, processes: int, parts: tuple[int, int]
) -> None:
    saved = dict(per_iteration=16, accumulated=1, processes=16)
    path = tmp_path / "a.pth"
    torch.save(dict(state_dict={}, meta=dict(global_batch=saved)), path)
    cfg = plain(per_process, resume=True, load_from=str(path))
    kept = keep_batch(cfg, processes)
    assert kept is not None and kept.size == 16
    batch_size = cfg.train_dataloader.batch_size
    assert (batch_size, 16 // processes // batch_size) == parts
    assert keep_batch(cfg, 16) is None


def test_processes_that_do_not_divide_the_batch__are_refused(
    folder: Path,  # noqa: F811
) -> None:
    run(plain(4), "whole")
    saved = torch.load("whole/iter_3.pth", weights_only=False)
    saved["meta"]["global_batch"]["processes"] = 4
    torch.save(saved, "three.pth")
    cfg = plain(4, resume=True, load_from="three.pth")
    with pytest.raises(ValueError, match="batch of 4 cannot be divided by 3 processes"):
        keep_batch(cfg, 3)


def test_model_with_batch_norm__is_not_accumulated(folder: Path) -> None:  # noqa: F811
    norm = {"model.neck": dict(type="ClsBatchNormNeck", input_features=16)}
    run(plain(4, **norm), "whole")
    with pytest.raises(InputError, match="with a global batch of 4 .* this run has 2"):
        run(plain(2, **norm), "rest", as_of_two("whole/iter_3.pth"))


def test_restart_by_torchrun__goes_on(
    folder: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    run(plain(4, **{"train_cfg.max_epochs": 2}), "work")
    run(plain(4), "work")
    assert "resume: going on from" in max(Path("work").glob("*/*.log")).read_text()


def test_refused_run__stays_refused_when_torchrun_repeats_it(
    folder: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(plain(4, **{"train_cfg.max_epochs": 2}), "work")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    for count in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        with pytest.raises(InputError, match="holds checkpoints of an earlier run"):
            run(plain(4), "work")
        # Refused when the file is read.
        with pytest.raises(InputError, match="with a global batch of 4 .* this run"):
            run(plain(6), "work", "work/iter_3.pth")
