"""mim-plugins pretrain, finetune, probe, embed, reconstruct."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from samples import ROOT

import mim_plugins
from mim_plugins.engine import InputError

sys.path.insert(0, str(ROOT / "tools"))
from cli import main, one_call  # noqa: E402


@pytest.mark.parametrize("command", one_call.COMMANDS)
def test_flags__are_the_keywords_of_the_function(command):
    flags = one_call.COMMANDS[command][1]
    parameters = inspect.signature(getattr(mim_plugins, command)).parameters
    assert {name.replace("-", "_") for name in flags} == set(parameters)
    for name, parameter in parameters.items():
        how = flags[name.replace("_", "-")]
        if parameter.default is inspect.Parameter.empty:
            assert how["required"]
        elif parameter.default is not False:
            assert how.get("default") == parameter.default, name


@pytest.fixture
def called(monkeypatch):
    calls = []

    def call(**options):
        calls.append(options)
        return Path("run/epoch_2.pth")

    monkeypatch.setattr(mim_plugins, "pretrain", call, raising=False)
    return calls


def test_command__calls_the_function_and_prints_what_it_made(called, capsys):
    line = "pretrain --data photos/ --model mae_vitt --img-size 64 160 --epochs 2"
    assert main.main(line.split()) == 0
    assert capsys.readouterr().out == "run/epoch_2.pth\n"
    (options,) = called
    assert options["data"] == "photos/" and options["img_size"] == [64, 160]
    assert options["epochs"] == 2 and options["resume"] is False


def test_input_error__is_a_sentence_and_a_status(monkeypatch, capsys):
    def refuse(**options):
        raise InputError("there is no model 'x'")

    monkeypatch.setattr(mim_plugins, "pretrain", refuse, raising=False)
    assert main.main(["pretrain", "--data", "a", "--model", "x"]) == 1
    assert capsys.readouterr().err.startswith("error: there is no model 'x' (")
    with pytest.raises(InputError):
        main.main(["pretrain", "--data", "a", "--debug"])


def test_embed__keeps_the_form_of_the_tool(monkeypatch):
    ran = []
    monkeypatch.setattr(main, "run_tool", lambda *args: ran.append(args))
    monkeypatch.setattr(one_call, "run", lambda *args: ran.append(args))
    main.main(["embed", "photos", "-o", "f.npz"])
    main.main(["embed", "--data=photos", "--encoder", "run"])
    assert ran == [
        ("embed", ["photos", "-o", "f.npz"]),
        ("embed", ["--data=photos", "--encoder", "run"]),
    ]


def test_help__answers_without_the_package():
    code = "from cli.main import main; import sys; main(['pretrain', '--help'])"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        cwd=ROOT / "tools",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "--img-size" in done.stdout
    assert not re.search(r"\| *(torch|mim_plugins|mmengine)$", done.stderr, re.M)
