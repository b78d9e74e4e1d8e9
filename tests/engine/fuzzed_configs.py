"""Configs and options with a random mistake, each of which must end in one sentence.

    python tests/engine/fuzzed_configs.py --count 1000 --options 500 --seed 0

Tiny configs of every kind are changed in one place and rehearsed as with
``tools/train.py --dry-run``: built, one step taken, a checkpoint written. A case ends
in an ``InputError``, which should name the key, or builds because the change is
legitimate.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import gc
import io
import json
import logging
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
for folder in ("", "tests", "tests/integration"):
    sys.path.insert(0, str(ROOT / folder))

import torch  # noqa: E402
from coco_files import write_coco  # noqa: E402
from mmengine.config import Config, DictAction  # noqa: E402
from samples import ade20k_layout, small_segmentor, stand_in_teachers  # noqa: E402
from test_every_config import few, narrow  # noqa: E402

from mim_plugins.engine import InputError, train  # noqa: E402
from mim_plugins.engine.config.overrides import READ, parts  # noqa: E402

# One config of every kind.
PRETRAINING = {
    "deepmim": "cifar10/deepmim_vit-d6_10e.py",
    "localmim": "localmim/vitb_hog_100e.py",
    "mirl": "cifar10/mirl_vit-d24_10e.py",
    "distilled": "distilled/mae-lite_vitt_400e.py",
}
CLASSIFICATION = "deepmim/benchmarks/mae_vits_finetune-100e_in1k.py"
DETECTION = "distilled/detection/mae_hierat_mask-rcnn_coco.py"
SEGMENTATION = "distilled/segmentation/mae_vitt_semantic-fpn_ade20k.py"

LIMIT = 60  # seconds for a case
MEMORY = 24 * 2**30  # bytes of addresses; a size of a billion is to fail at once
NUMBERS = (-1, 0, 2, 0.5, -0.5, 1.5, 7, 10**6, float("nan"), float("inf"), True)
OTHERS = ("abc", "", None, [], {}, [1, 2], dict(a=1), "1", (0.5, 0.1), [None])
TEXTS = (
    *("abc", "None", "-1", "0", "nan", "inf", "1e999", "[1,2", "[]", "(1,2)", "True"),
    *("{}", "''", "1.5", "[0.5,2]", "1,2,3", "-0.5", "10**9", "a=b", "..", "∞"),
)


# How a case may end.
GOOD = {"builds", "names the key", "names the part"}


class Case(NamedTuple):
    """A change, and the key that a message should name."""

    what: str
    key: str
    value: str


class TooSlow(BaseException):
    """A case took longer than its limit."""


def write_configs(folder: Path) -> dict[str, Config]:
    """Write tiny configs and their data.

    Args:
        folder: Where the data go.

    Returns:
        The configs by name; detection and segmentation where they are installed.
    """
    import cv2
    import numpy as np

    draw = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 2), ("test", 2)):
        for label in ("a", "b"):
            images = folder / "images" / part / label
            images.mkdir(parents=True)
            for index in range(count):
                picture = draw.integers(0, 255, (48, 40, 3), dtype=np.uint8)
                cv2.imwrite(str(images / f"{index}.jpg"), picture)
    configs = {}
    for name, path in {**PRETRAINING, "classification": CLASSIFICATION}.items():
        cfg = Config.fromfile(ROOT / "configs" / path)
        kept = copy.deepcopy([cfg.param_scheduler, cfg.default_hooks])
        narrow(cfg.model)
        stand_in_teachers(cfg.model, folder)
        few(cfg, folder / "images")
        cfg.param_scheduler, cfg.default_hooks = kept
        cfg.train_cfg.max_epochs = 50
        configs[name] = cfg
    with contextlib.suppress(ImportError):
        from test_detection_configs import reduced

        root = write_coco(folder / "coco")
        cfg = Config.fromfile(ROOT / "configs" / DETECTION)
        configs["detection"] = reduced(cfg, root)
        configs["detection"].train_cfg.max_iters = 2000
    with contextlib.suppress(ImportError):
        import mmseg  # noqa: F401

        ade20k_layout(folder / "ade20k")
        cfg = Config.fromfile(ROOT / "configs" / SEGMENTATION)
        small_segmentor(cfg, folder / "ade20k", folder / "none")
        cfg.train_cfg.max_iters = 2000
        configs["segmentation"] = cfg
    for name, cfg in configs.items():
        cfg.pop("pretrained", None)
        cfg.work_dir = str(folder / "work" / name)
        for part in ("test_dataloader", "test_evaluator", "test_cfg"):
            cfg.pop(part, None)
        for variable in [x for x in cfg if x not in READ and x != "data_root"]:
            cfg.pop(variable)
    return configs


def misspelt(name: str, draw: random.Random) -> str:
    """A name with one slip of the fingers."""
    at = draw.randrange(len(name))
    slips = (
        name[:at] + name[at + 1 :],
        name[:at] + name[at] + name[at:],
        name[: max(0, at - 1)] + name[at] + name[max(0, at - 1) : at] + name[at + 1 :],
    )
    return next((x for x in draw.sample(slips, 3) if x and x != name), name + "x")


def mutated(cfg: Config, draw: random.Random) -> Case:
    """Change one thing in a config.

    Args:
        cfg: The config, changed in place.
        draw: The source of chance.
    """
    places = [
        (parent, key, f"{path}.{key}" if path else str(key))
        for path, parent in [("", cfg._cfg_dict), *parts(cfg)]
        if isinstance(parent, Mapping)
        for key in parent
        if path.partition(".")[0] in READ or (not path and key in READ)
    ]
    parent, key, path = draw.choice(places)
    value = parent[key]
    what = draw.choice(
        ("value", "value", "value", "type", "misspelt", "removed", "new")
    )
    if what == "misspelt":
        slip = misspelt(key, draw)
        parent[slip] = parent.pop(key)
        return Case(what, f"{path} as {slip}", "")
    if what == "removed":
        parent.pop(key)
        return Case(what, path, "")
    if what == "new":
        slip = misspelt(key, draw) + "_"
        parent[slip] = 1
        return Case(what, f"{path} and {slip}", "")
    number = isinstance(value, int | float)
    if key == "type" and isinstance(value, str) and draw.random() < 0.5:
        new: Any = misspelt(value, draw)
    elif what == "value" and number:
        new = draw.choice(NUMBERS)
    elif what == "value" and isinstance(value, list | tuple) and value:
        new = list(value)
        new[draw.randrange(len(new))] = draw.choice((*NUMBERS, *OTHERS))
    else:
        new = draw.choice(OTHERS)
    parent[key] = new
    return Case(what, path, repr(new))


def option(cfg: Config, draw: random.Random) -> tuple[dict[str, Any], Case]:
    """An argument of ``--cfg-options``, parsed as on the command line.

    Args:
        cfg: The config.
        draw: The source of chance.
    """
    keys = [key for key, _ in parts(cfg)]
    key = draw.choice(keys)
    slip = draw.random()
    if slip < 0.15:
        names = key.split(".")
        at = draw.randrange(len(names))
        names[at] = misspelt(names[at], draw)
        key = ".".join(names)
    elif slip < 0.25:
        key += draw.choice((".a", ".0", ".99", ".a.b", "."))
    text = draw.choice(TEXTS)
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            options = parser.parse_args(["--cfg-options", f"{key}={text}"]).cfg_options
    except (SystemExit, Exception):
        options = {key: text}
    return options, Case("option", key, text)


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise :class:`TooSlow` after a time."""

    def stop(*_: Any) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ending(path: Path, case: Case, options: dict[str, Any] | None) -> tuple[str, str]:
    """Rehearse a config file.

    Returns:
        How it ended: ``builds``, ``names the key``, ``names the part``, ``names
        nothing``, ``traceback`` or ``too slow``; and the message.
    """
    quiet = io.StringIO()
    try:
        with (
            time_limit(LIMIT),
            contextlib.redirect_stdout(quiet),
            contextlib.redirect_stderr(quiet),
        ):
            train(path, cfg_options=options, precision="fp32", dry_run=True)
    except InputError as error:
        message = str(error)
        if "\n" in message or not message:
            return "not one line", message
        return named(message, case), message
    except TooSlow:
        return "too slow", ""
    except BaseException:
        return "traceback", traceback.format_exc()
    return "builds", ""


def named(message: str, case: Case) -> str:
    """Whether a message names the key, or the part that has it."""
    keys = [x for x in case.key.replace(" as ", " ").replace(" and ", " ").split()]
    lasts = [key.rpartition(".")[2] for key in keys]
    if any(last and last in message for last in lasts if not last.isdigit()):
        return "names the key"
    names = keys[0].split(".")
    above = {".".join(names[:depth]) for depth in range(1, len(names) + 1)}
    return "names the part" if any(x in message for x in above) else "names nothing"


def campaign(
    count: int, options: int, seed: int, kinds: list[str], out: str | None = None
) -> list[dict]:
    """Run the cases.

    Args:
        count: Changed configs.
        options: Options of the command line.
        seed: Of the source of chance.
        kinds: Names of the configs to change; empty for all.
        out: A file for one line of JSON for each case, as they end.

    Returns:
        For each what was changed, how it ended, and the message.
    """
    draw, results = random.Random(seed), []
    with (
        tempfile.TemporaryDirectory() as name,
        # mmengine lays configs out with yapf, which takes longer than a case.
        mock.patch("mmengine.config.config.FormatCode", unformatted, create=True),
        mock.patch("yapf.yapflib.yapf_api.FormatCode", unformatted),
    ):
        folder = Path(name)
        configs = write_configs(folder)
        bases = {key: cfg for key, cfg in configs.items() if not kinds or key in kinds}
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        for index in range(count + options):
            kind = draw.choice(sorted(bases))
            cfg = copy.deepcopy(bases[kind])
            path, given = folder / f"{kind}_{seed}_{index}.py", None
            if index < count:
                case = mutated(cfg, draw)
            else:
                given, case = option(cfg, draw)
            text = "\n".join(f"{key} = {value!r}" for key, value in plain(cfg).items())
            text = f"from math import inf, nan\n{text}\n"
            path.write_text(text)
            start = time.perf_counter()
            how, message = ending(path, case, given)
            path.unlink()
            left = {x for x in folder.rglob("*")} - before.keys()
            if left:
                how, message = "left files", str(sorted(left)[:3])
                before.update({x: 0 for x in left})
            results.append(
                dict(index=index, kind=kind, **case._asdict(), how=how)
                | dict(message=message, seconds=time.perf_counter() - start)
            )
            gc.collect()  # runners are cycles
            if out:
                with Path(out).open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
    return results


def unformatted(text: str, **_: Any) -> tuple[str, bool]:
    """Lays a config out as it is."""
    return text, False


def plain(node: Any) -> Any:
    """A config as dicts, lists and values, whose ``repr`` is Python."""
    if isinstance(node, Config):
        node = node._cfg_dict
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(plain(value) for value in node)
    return node


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="changed configs")
    parser.add_argument("--options", type=int, default=500, help="--cfg-options")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=[], help="of configs to change")
    parser.add_argument("--out", help="a file for one line of JSON for each case")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    results = campaign(args.count, args.options, args.seed, args.kinds, args.out)
    counts = collections.Counter(x["how"] for x in results)
    print(dict(counts))
    built = collections.Counter(
        f"{x['what']} {x['key'].rpartition('.')[2]}"
        for x in results
        if x["how"] == "builds"
    )
    print("build:", ", ".join(f"{key} ({n})" for key, n in built.most_common()))
    sys.exit(
        any(x not in ("builds", "names the key", "names the part") for x in counts)
    )


if __name__ == "__main__":
    main()
