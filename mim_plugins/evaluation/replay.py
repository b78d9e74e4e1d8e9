"""Runs the batch of a skipped step again, to find where it stops being finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from ..checkpoints.files import read_content
from ..datasets.seeding import seed_rng
from ..engine.config.settings import plain_batch_norm
from ..engine.prepare import load_config
from ..engine.running.kept_batches import Batch, read_batches
from ..engine.running.loops import step_key
from .run_config import parse_config

# Names in a list; all of a model's would be thousands.
_NAMED = 5


@dataclass
class Replay:
    """What a batch gives when it is run again.

    Args:
        batch: The batch.
        losses: Each loss, by name.
        gradient_norm: Norm of the gradient of their sum.
        module: The first module whose output is not finite, in the order in which
            modules finish; empty if there is none.
        gradients: Parameters whose gradients are not finite.
    """

    batch: Batch
    losses: dict[str, float]
    gradient_norm: float
    module: str
    gradients: list[str]

    def __str__(self) -> str:
        batch = self.batch
        lines = [
            f"iteration {batch.iteration} (epoch {batch.epoch + 1}), images: "
            f"{', '.join(batch.paths) or 'not known'}"
        ]
        if batch.broken:
            lines.append(f"  images with non-finite values: {', '.join(batch.broken)}")
        if not batch.exact:
            lines.append(
                "  the images were loaded again when the step was skipped: their "
                "random crops may be others"
            )
        lines += [f"  {name}: {value:.6g}" for name, value in self.losses.items()]
        lines.append(f"  gradient norm: {self.gradient_norm:.6g}")
        lines.append(
            "  first module whose output is not finite: "
            f"{self.module or 'none, all outputs are finite'}"
        )
        if self.gradients:
            lines.append(f"  gradients that are not finite: {_listed(self.gradients)}")
        return "\n".join(lines)


def replay(
    path: str | Path,
    config: str | None = None,
    checkpoint: str | None = None,
    device: str | None = None,
) -> Iterator[Replay | str]:
    """Run forward and backward pass on the batches of a file of skipped ones.

    Args:
        path: The file, ``non_finite/iter_N_rankR.pth`` of a work dir.
        config: A config file to build the model from; by default the file's own, which
            is only read, not executed.
        checkpoint: A checkpoint with the weights; by default those that were kept with
            the file.
        device: Where to compute; None takes a GPU if there is one.

    Yields:
        Lines about the weights and the precision, then what each batch gives.

    Raises:
        FileNotFoundError: If the weights are not there any more.
        ValueError: If the file is another one, or its config or batch is of no use.
    """
    content = read_batches(path)
    if config is None:
        try:
            cfg = parse_config(content["config"])
        except (ValueError, SyntaxError) as error:
            raise ValueError(
                f"the config in {path} is not accepted: {error}. None of it was "
                "executed. Give the config file of the run with --config"
            ) from error
    else:
        cfg = load_config(config)
    weights = Path(checkpoint or content["weights"])
    if not weights.is_file():
        raise FileNotFoundError(
            f"there is no file {weights}: give a checkpoint of the run with "
            "--checkpoint, or another one that fits its model"
        )
    device = device or get_device()
    model, notes = _build(cfg, weights)
    yield from notes
    autocast, note = _autocast(cfg, device)
    yield note
    model.to(device).train()
    for batch in content["batches"]:
        if batch.data is None:
            yield f"iteration {batch.iteration}: the batch itself is not in the file"
            continue
        # As the training loop does: generators of Python and numpy follow from this.
        key = step_key(content["seed"] or 0, batch.iteration - 1, content["rank"])
        seed_rng(key)
        yield _run(model, batch, autocast)


def _build(cfg: Config, weights: Path) -> tuple[Any, list[str]]:
    """The model of a config with the weights of a file, and lines about them."""
    init_default_scope(cfg.get("default_scope", "mmengine"))
    plain_batch_norm(cfg)
    kind = dict(cfg.model)
    if "data_preprocessor" in cfg:
        kind.setdefault("data_preprocessor", cfg.data_preprocessor)
    model = MODELS.build(kind)
    model.init_weights()  # also reads frozen teachers, which checkpoints leave out
    state = read_content(weights)
    found = model.load_state_dict(state.get("state_dict", state), strict=False)
    notes = [f"weights: {weights}"]
    for name, keys in (
        ("the model has, and the file has not", found.missing_keys),
        ("the file has, and the model has not", found.unexpected_keys),
    ):
        if keys:
            notes.append(f"  weights that {name}: {_listed(list(keys))}")
    bad = [k for k, x in model.state_dict().items() if not x.isfinite().all()]
    if bad:
        notes.append(f"  weights that are not finite: {_listed(bad)}")
    return model, notes


def _autocast(cfg: Config, device: str) -> tuple[Any, str]:
    """The precision of a config, as far as a device has it, and a line about it."""
    wrapper = cfg.get("optim_wrapper") or {}
    kind = str(wrapper.get("type"))
    dtype = dict(AutocastOptimWrapper="bfloat16", AmpOptimWrapper="float16").get(kind)
    if kind == "AmpOptimWrapper":
        dtype = str(wrapper.get("dtype") or dtype)
    if dtype is None:
        return nullcontext, f"precision: float32 on {device}"
    if device == "cpu" and dtype != "bfloat16":
        return nullcontext, f"precision: float32, since a CPU has no {dtype}"
    return (
        lambda: torch.autocast(torch.device(device).type, getattr(torch, dtype)),
        f"precision: {dtype} on {device}",
    )


def _run(model: Any, batch: Batch, autocast: Any) -> Replay:
    """Forward and backward pass of a batch."""
    torch.set_rng_state(batch.rng["cpu"])
    if "cuda" in batch.rng and torch.cuda.is_available():
        torch.cuda.set_rng_state(batch.rng["cuda"])
    model.zero_grad()
    with _first_not_finite(model) as found, autocast():
        data = model.data_preprocessor(batch.data, True)
        given = (
            data
            if isinstance(data, Mapping)
            else dict(zip(_ARGUMENTS, data, strict=True))
        )
        losses = model(**given, mode="loss")
        total, values = model.parse_losses(losses)
    total.backward()
    gradients = {
        name: param.grad
        for name, param in model.named_parameters()
        if param.grad is not None
    }
    norms = [gradient.float().norm() for gradient in gradients.values()]
    return Replay(
        batch,
        {name: float(value) for name, value in values.items()},
        float(torch.stack(norms).norm()) if norms else 0.0,
        found[0] if found else "",
        [name for name, x in gradients.items() if not x.isfinite().all()],
    )


# Of models whose preprocessor returns a tuple.
_ARGUMENTS = ("inputs", "data_samples")


@contextmanager
def _first_not_finite(model: nn.Module) -> Iterator[list[str]]:
    """Notes modules whose outputs are not finite, the innermost first."""
    found: list[str] = []

    def watch(name: str, module: nn.Module) -> Any:
        def look(module: nn.Module, args: Any, output: Any) -> None:
            if not found and not all(x.isfinite().all() for x in _tensors(output)):
                given = (
                    ""
                    if all(x.isfinite().all() for x in _tensors(args))
                    else (", given values that are not finite")
                )
                found.append(f"{name} ({type(module).__name__}{given})")

        return module.register_forward_hook(look)

    handles = [watch(name, module) for name, module in model.named_modules() if name]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Floating tensors in the arguments or the output of a module."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{rest}"
