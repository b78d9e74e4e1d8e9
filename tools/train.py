"""Train what a config describes: pre-training, classification, detection, segmentation.

    python tools/train.py CONFIG [--work-dir DIR] [--resume [auto|PATH]] …

Several processes are started by tools/dist_train.sh and tools/slurm_train.sh.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from mmengine.config import DictAction

# Where values are logged to, next to the files of the working directory.
SERVICES = {
    "tensorboard": "TensorBoard",
    "wandb": "Weights & Biases",
    "mlflow": "MLflow",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", help="path of the config file")
    parser.add_argument(
        "--work-dir",
        help="where checkpoints and logs go (default: work_dirs/ and the config's path "
        "below configs/)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="auto|PATH",
        help="go on from a checkpoint; without a path from the newest in the work dir",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="what to compute in (default: bf16 on CUDA, fp16 there for detection, "
        "fp32 on the CPU)",
    )
    parser.add_argument(
        "--amp", action="store_true", help="the same as --precision bf16"
    )
    parser.add_argument(
        "--no-auto-scale-lr",
        action="store_true",
        help="keep the learning rate of the config, whatever the batch size, and "
        "accumulate nothing",
    )
    parser.add_argument(
        "--no-accumulate",
        action="store_true",
        help="scale the learning rate to the real batch, rather than accumulate "
        "gradients to the recipe's batch",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="replace values of the config, as in train_dataloader.batch_size=64; "
        "data_root=PATH reaches every data set of the config, train_pipeline.… the "
        "data sets with that pipeline; an option that changes nothing is an error",
    )
    for name, package in SERVICES.items():
        parser.add_argument(
            f"--{name}",
            action="store_true",
            help=f"log values and pictures to {package}, too (pip install {name})",
        )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the final config and where changed values come from, and stop",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, decode a few images, take one step, write and read a "
        "checkpoint, print the plan of the run, and leave nothing behind",
    )
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        default="none",
        help="who starts the processes",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="show all that the log file gets, environment and config included",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of input errors"
    )
    # torch.distributed.launch passes this one.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    args = parser.parse_args(argv)
    if args.amp and args.precision not in (None, "bf16"):
        parser.error(f"--amp means --precision bf16, not {args.precision}")
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main() -> None:
    """Run the command line."""
    args = parse_args()
    # Before the run can save anything, which importing takes seconds to get to: Ctrl-C
    # ends without a traceback, and a scheduler's signal waits until it is understood.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    # Imported after the arguments, so that --help answers at once.
    from mim_plugins.engine import InputError, annotated_config, train

    options = dict(
        work_dir=args.work_dir,
        resume=args.resume,
        precision="bf16" if args.amp else args.precision,
        auto_scale_lr=not args.no_auto_scale_lr,
        accumulate_batch=not args.no_accumulate,
        cfg_options=args.cfg_options,
        launcher=args.launcher,
        log_to=[name for name in SERVICES if getattr(args, name)],
    )
    try:
        if args.print_config:
            print(annotated_config(args.config, **options))
        else:
            train(args.config, dry_run=args.dry_run, verbose=args.verbose, **options)
    except InputError as error:
        if args.debug:
            raise
        sys.exit(f"error: {error} (--debug shows where it was raised)")


if __name__ == "__main__":
    main()
