"""Modules as ONNX files, which onnxruntime runs without torch."""

from __future__ import annotations

import inspect
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.files import write_atomically

OPSET = 17


def needed(name: str) -> Any:
    """Imports a package of the extra ``onnx``.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return __import__(name)
    except ImportError as error:
        raise ImportError(
            f"{name} is needed for ONNX: pip install 'mim_plugins[onnx]', or pip "
            f"install {name}"
        ) from error


def graph_of(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]] | None = None,
) -> Any:
    """What a module computes, as an ``onnx.ModelProto``.

    Args:
        module: In evaluation mode.
        inputs: What it is traced with.
        input_names: A name for each.
        output_names: A name for each output.
        dynamic_axes: Names of the axes of any size, by input or output and axis.

    Raises:
        ImportError: If onnx is not installed.
    """
    onnx = needed("onnx")
    options: dict[str, Any] = {}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False  # the other exporter needs one more package
    buffer: Any = io.BytesIO()  # newer stubs know of paths alone
    with torch.no_grad(), warnings.catch_warnings():
        # Of sizes that are fixed, and of a deprecation that is this function's choice.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module,
            inputs,
            buffer,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_axes={k: dict(x) for k, x in (dynamic_axes or {}).items()},
            opset_version=OPSET,
            **options,
        )
    return onnx.load_from_string(buffer.getvalue())


def save_graph(graph: Any, path: str | Path, name: str, settings: Any) -> None:
    """Writes a graph, with settings as JSON in its metadata.

    Args:
        graph: Of :func:`graph_of`.
        path: The file; one that is there is replaced.
        name: Name of the entry of the metadata.
        settings: What must be known to use the file.

    Raises:
        FileNotFoundError: If there is no folder to write to.
    """
    onnx = needed("onnx")
    onnx.helper.set_model_props(graph, {name: json.dumps(settings)})
    write_atomically(path, lambda file: onnx.save(graph, str(file)))
