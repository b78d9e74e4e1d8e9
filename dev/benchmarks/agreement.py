"""Whether the fast code computes what the reference computes."""

import torch

from mim_plugins.checkpoints.layouts.mae_lite import convert_official

from .dims import MIMDims
from .implementations import Implementation


def compare_with_reference(
    ours: Implementation, reference: Implementation, images: torch.Tensor, dims: MIMDims
) -> dict[str, float]:
    """Give two models equal weights and compare loss and gradients on one mask.

    Args:
        ours: Built from a config; it takes over the reference's weights.
        reference: The plain reference of the same sizes.
        images: A uint8 batch (N, C, H, W).
        dims: Sizes of both.

    Returns:
        ``loss``: relative difference; ``gradient``: largest difference in any
        gradient tensor, relative to the tensor's largest entry. The fast paths are
        meant to stay below 1e-6 and 1e-5 in fp32, and the loss below 2e-3 in bf16.

    Raises:
        KeyError: If a parameter of one has no counterpart in the other.
    """
    ours.model.load_state_dict(convert_official(reference.model.state_dict()))
    order = torch.rand(len(images), dims.patches, device=images.device).argsort(dim=1)
    removed = torch.ones_like(order).scatter_(1, order[:, : dims.visible], 0)
    # Sorted by this, patches stay in raster order as under a given mask.
    noise = removed * dims.patches + torch.arange(dims.patches, device=images.device)
    inputs = ours.model.data_preprocessor({"inputs": images}, training=True)["inputs"]
    with ours.autocast():
        losses = ours.model.loss(inputs, {"mask": removed})
        our_loss = ours.model.parse_losses(losses)[0]
        reference_loss = reference.model(inputs, noise).loss
    our_loss.backward()
    reference_loss.backward()
    expected = convert_official(_gradients(reference))
    found = _gradients(ours)
    if found.keys() != expected.keys():
        odd = ", ".join(sorted(found.keys() ^ expected.keys()))
        raise KeyError(f"no counterpart among the trained parameters: {odd}")
    differences = [
        ((found[k] - value).abs().max() / value.abs().max()).item()
        for k, value in expected.items()
    ]
    for implementation in (ours, reference):
        implementation.wrapper.zero_grad()
    loss = (our_loss / reference_loss - 1).abs().item()
    return {"loss": loss, "gradient": max(differences)}


def _gradients(implementation: Implementation) -> dict[str, torch.Tensor]:
    """Gradients of all trained parameters by name."""
    return {
        name: param.grad
        for name, param in implementation.model.named_parameters()
        if param.requires_grad
    }
