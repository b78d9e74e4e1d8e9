"""The command ``mim-plugins``."""

from __future__ import annotations

import argparse
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

from . import doctor, one_call

# Commands that are tools of the repository, with their arguments.
TOOLS = {
    "train": ("train.py", "train what a config describes"),
    "test": ("test.py", "evaluate a checkpoint"),
    "embed": ("embed.py", "write the features of a folder of images"),
    "convert": ("convert_checkpoint.py", "convert a checkpoint to another layout"),
    "demo": ("demo.py", "pre-train on real images within minutes"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    # `embed` has two forms: that of the tool takes the images first.
    if argv and argv[0] in one_call.COMMANDS and not _is_tool(argv):
        return one_call.run(argv[0], argv[1:])
    if argv and argv[0] in TOOLS:
        return run_tool(argv[0], argv[1:])
    parser = argparse.ArgumentParser(
        prog="mim-plugins",
        description="Masked-image-modelling pre-training for OpenMMLab.",
        epilog="mim-plugins COMMAND --help describes a command.",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    texts = {name: text for name, (_, text) in TOOLS.items()}
    texts = {name: text for name, (text, _) in one_call.COMMANDS.items()} | texts
    for name, text in texts.items():
        commands.add_parser(name, help=text, add_help=False)
    text = "check that the installation is complete and fits together"
    examined = commands.add_parser("doctor", help=text, description=text)
    examined.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    if args.version:
        from importlib.metadata import version

        print(f"mim-plugins {version('mim_plugins')}")
        return 0
    if args.command == "doctor":
        findings = doctor.examine(Path.cwd(), doctor.training_step)
        return doctor.report(findings, args.json)
    parser.print_help()
    return 2


def _is_tool(argv: list[str]) -> bool:
    """Whether a command that has two forms is given in that of the tool."""
    own = any(x.partition("=")[0] in ("--data", "--help", "-h") for x in argv)
    return argv[0] in TOOLS and not own


def run_tool(name: str, arguments: list[str]) -> int:
    """Runs a tool that comes with the package."""
    package = find_spec("mim_plugins")
    if package is None or package.origin is None:
        print("mim_plugins is not installed", file=sys.stderr)
        return 1
    path = Path(package.origin).parent / ".mim" / "tools" / TOOLS[name][0]
    run = runpy.run_path(str(path))["main"]
    sys.argv = [f"mim-plugins {name}", *arguments]
    run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
