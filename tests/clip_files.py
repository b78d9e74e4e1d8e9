"""One tiny CLIP, saved in every layout that CLIP models are found in.

Every ``save_*`` takes the state dict of the image tower and a folder, and returns what
a user would give as checkpoint.
"""

import json
import warnings

import torch
from mmpretrain.models.utils.clip_generator_helper import CLIP
from safetensors.torch import save_file
from samples import clip_state_dict

WIDTH, OUT = 128, 24


def tower(size=32, patch=8):
    """A tower's state dict, OpenAI's keys, of values that half precision holds."""
    state = clip_state_dict(width=WIDTH, layers=2, patch=patch, size=size, out=OUT)
    return {key: value.half().float() for key, value in state.items()}


def visual(state):
    return {f"visual.{key}": value for key, value in state.items()}


def whole_clip(state):
    """A model with both halves, as OpenAI's code builds it, with such a tower."""
    model = CLIP(OUT, 32, 2, WIDTH, 8, 5, 11, 64, 1, 1)
    model.load_state_dict({**model.state_dict(), **visual(state)})
    return model


def hugging_face(state):
    """The same tower under Hugging Face's keys, written out by hand."""
    renamed = {
        "visual_projection.weight": state["proj"].T.contiguous(),
        "vision_model.embeddings.class_embedding": state["class_embedding"],
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
        "vision_model.embeddings.position_embedding.weight": state[
            "positional_embedding"
        ],
        "vision_model.embeddings.patch_embedding.weight": state["conv1.weight"],
    }
    for p in ("weight", "bias"):
        renamed[f"vision_model.pre_layrnorm.{p}"] = state[f"ln_pre.{p}"]
        renamed[f"vision_model.post_layernorm.{p}"] = state[f"ln_post.{p}"]
        for i in range(2):
            theirs = f"vision_model.encoder.layers.{i}."
            openai = f"transformer.resblocks.{i}."
            for a, b in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                renamed[f"{theirs}{a}.{p}"] = state[f"{openai}{b}.{p}"]
            parts = state[f"{openai}attn.in_proj_{p}"].chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                renamed[f"{theirs}self_attn.{name}_proj.{p}"] = part.clone()
    return renamed


def write_json(path, **content):
    path.write_text(json.dumps(content))


def save_torchscript(state, folder):
    """The archive that OpenAI publishes: a traced model of both halves, in half."""
    model = whole_clip(state).eval()
    images = torch.zeros(1, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, which nobody runs afterwards
        traced = torch.jit.trace_module(
            model, {"encode_image": images}, check_trace=False
        )
    traced.half().save(str(folder / "ViT-B-16.pt"))
    return folder / "ViT-B-16.pt"


def save_whole(state, folder):
    torch.save(whole_clip(state).half().state_dict(), folder / "clip.pth")
    return folder / "clip.pth"


def save_wrapped(state, folder):
    keys = {f"module.{key}": value for key, value in visual(state).items()}
    torch.save({"epoch": 3, "state_dict": keys}, folder / "epoch_3.pt")
    return folder / "epoch_3.pt"


def save_model_key(state, folder):
    torch.save({"model": state}, folder / "clip.pth")
    return folder / "clip.pth"


def save_bfloat16(state, folder):
    # Eight bits of mantissa hold less: rounded before, so that all files agree.
    state.update({k: v.bfloat16().float() for k, v in state.items()})
    torch.save({k: v.bfloat16() for k, v in visual(state).items()}, folder / "bf16.pt")
    return folder / "bf16.pt"


def save_open_clip(state, folder):
    """What open_clip downloads from the hub."""
    text = {f"text.{k}": torch.zeros(2) for k in ("cls_emb", "ln_final.weight")}
    save_file({**visual(state), **text}, folder / "open_clip_model.safetensors")
    vision = dict(image_size=32, layers=2, width=WIDTH, patch_size=8)
    model = dict(embed_dim=OUT, quick_gelu=True, vision_cfg=vision, text_cfg={})
    write_json(folder / "open_clip_config.json", model_cfg=model)
    return folder


def save_hugging_face(state, folder):
    text = {"text_model.embeddings.token_embedding.weight": torch.zeros(2, 2)}
    text["logit_scale"] = torch.zeros(())
    save_file({**hugging_face(state), **text}, folder / "model.safetensors")
    vision = dict(hidden_size=WIDTH, num_attention_heads=2, hidden_act="quick_gelu")
    write_json(folder / "config.json", model_type="clip", vision_config=vision)
    return folder


def save_hugging_face_half(state, folder):
    """The image half alone, in half precision, pickled."""
    keys = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    torch.save(hugging_face(keys), folder / "pytorch_model.bin")
    write_json(
        folder / "config.json",
        model_type="clip_vision_model",
        hidden_size=WIDTH,
        num_attention_heads=2,
    )
    return folder / "pytorch_model.bin"


LAYOUTS = [
    save_torchscript,
    save_whole,
    save_wrapped,
    save_model_key,
    save_bfloat16,
    save_open_clip,
    save_hugging_face,
    save_hugging_face_half,
]
