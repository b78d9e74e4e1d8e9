"""Makes malformed checkpoints of every kind, and sees what reading them does.

    python tests/checkpoints/malformed_files.py --count 2000 --seed 7

The same seed gives the same files. Each must be refused by a clear error that names it,
or be read where nothing shows that it was changed; of an archive of torch, whose
checksums show it, with the very values that were saved. No code is run. Files that take
more than five seconds, or memory far beyond their size, are counted and listed.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import pickle
import random
import struct
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile_pickles as hostile
import numpy as np
import torch
from whole_files import OLD, saved, tensors, whole_files

# In these kinds a file may stay whole, or be harmless: it may be read.
MAY_BE_READ = {
    "cut short", "bits", "bytes", "malicious", "safetensors", "script", "shapes"
}  # fmt: skip

SUFFIXES = (".pth", ".safetensors", ".pdparams")


class Maker:
    """Makes files of a seed.

    Args:
        seed: It.
        folder: Where they go.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.draw = random.Random(seed)
        self.folder = folder
        self.canary = folder / "code_was_run"
        self.whole = whole_files()
        self.payloads = sorted(hostile.payloads(self.canary).items())
        self.bombs = sorted(hostile.bombs().items())
        # A module whose import leaves a trace.
        source = f"open({str(self.canary)!r}, 'w').close()\n"
        (folder / "canary_module.py").write_text(source)

    def files(self, count: int) -> Iterator[tuple[str, Path]]:
        """So many files, with their kinds; every kind has its share."""
        kinds: dict[str, Callable[[int], tuple[str, bytes]]] = {
            "malicious": self.malicious,
            "cut short": self.cut_short,
            "bits": self.bits,
            "bomb": self.bomb,
            "bytes": self.bytes,
            "wrong types": self.wrong_types,
            "archive": self.archive,
            "safetensors": self.safetensors,
            "script": self.script,
            "shapes": self.shapes,
            "no checkpoint": self.no_checkpoint,
        }
        shares = ["malicious"] * 3 + ["bits"] * 3 + ["bomb"] + list(kinds)
        turns: Counter[str] = Counter()
        for index in range(count):
            kind = shares[index % len(shares)]
            name, content = kinds[kind](turns[kind])
            turns[kind] += 1
            path = self.folder / f"{index:05d}_{name}"
            path.write_bytes(content)
            yield kind, path

    def _some(self) -> tuple[str, bytes]:
        return self.draw.choice(sorted(self.whole.items()))

    def _place(self, content: bytes) -> int:
        """A place in a file, more often where it says what is in it."""
        near = self.draw.choice((64, 1024, len(content)))
        place = self.draw.randrange(min(near, len(content)))
        return place if self.draw.random() < 0.6 else len(content) - 1 - place

    def cut_short(self, _: int) -> tuple[str, bytes]:
        name, content = self._some()
        return name, content[: self._place(content)]

    def bits(self, _: int) -> tuple[str, bytes]:
        name, content = self._some()
        changed = bytearray(content)
        for _ in range(self.draw.choice((1, 1, 2, 8, 64))):
            changed[self._place(content)] ^= 1 << self.draw.randrange(8)
        return name, bytes(changed)

    def bytes(self, _: int) -> tuple[str, bytes]:
        """Bytes are put in, left out, overwritten, or come from another file."""
        name, content = self._some()
        start, length = self._place(content), self.draw.choice((1, 4, 40, 400))
        _, other = self._some()
        put = self.draw.choice(
            (b"", self.draw.randbytes(length), b"\xff" * length, other[start:][:length])
        )
        skipped = self.draw.choice((0, len(put), length))
        return name, content[:start] + put + content[start + skipped :]

    def malicious(self, turn: int) -> tuple[str, bytes]:
        _, piece = self.payloads[turn % len(self.payloads)]
        return self._contained(piece, turn // len(self.payloads))

    def bomb(self, turn: int) -> tuple[str, bytes]:
        _, piece = self.bombs[turn % len(self.bombs)]
        return self._contained(piece, turn // len(self.bombs))

    def _contained(self, piece: bytes, turn: int) -> tuple[str, bytes]:
        """A piece of a pickle in a file of any form that has pickles in it."""
        wrapper = self.draw.choice((None, "model", "state_dict"))
        pickled = hostile.state_dict(piece, wrapper=wrapper)
        form = (turn + self.draw.randrange(6)) % 6
        if form == 0:
            return "bare.pth", pickled
        if form == 1:
            return "x.pdparams", pickled
        if form == 2:
            return "script.pt", self.with_pickle("script.pt", pickled)
        if form == 3:
            return "old.pth", self._old_with(pickled)
        return "weights.pth", self.with_pickle("weights.pth", pickled)

    def with_pickle(self, name: str, pickled: bytes) -> bytes:
        """An archive with another pickle in it."""
        changed = io.BytesIO()
        source = zipfile.ZipFile(io.BytesIO(self.whole[name]))
        with source, zipfile.ZipFile(changed, "w") as target:
            for entry in source.infolist():
                own = entry.filename.endswith("/data.pkl")
                content = pickled if own else source.read(entry)
                target.writestr(entry.filename, content)
        return changed.getvalue()

    def _old_with(self, pickled: bytes) -> bytes:
        """A file of before torch 1.6 with it in the place of one of its pickles."""
        content = self.whole["old.pth"]
        file = io.BytesIO(content)
        ends = [0]
        for _ in range(3):
            pickle.load(file)
            ends.append(file.tell())
        at = self.draw.randrange(4)
        return content[: ends[at]] + pickled + content[ends[at] :]

    def wrong_types(self, turn: int) -> tuple[str, bytes]:
        one = torch.ones(1)
        contents: list[Any] = [
            [one], one, 5, None, "text", (one, one), {1: one}, {"w": [one]}, {},
            {"state_dict": 5}, {"model": {"w": "text"}}, {"model": {"w": None}},
            {"state_dict": {2: 3}}, {"module": {"model": {"w": one}}}, {"epoch": 3},
            {("a", "b"): one}, {"state_dict": [one]}, {"w": np.ones(3, "c8")}, {"a"},
            {"model": {}}, {b"w": one}, {"w": np.array(["a"])}, {None: None},
            {"state_dict": {"w": {"w": {"w": one}}}},
        ]  # fmt: skip
        content = contents[turn % len(contents)]
        turn //= len(contents)
        if turn % 3 == 2:
            return "x.pdparams", pickle.dumps(content)
        return "weights.pth", saved(content, **(OLD if turn % 3 else {}))

    def shapes(self, turn: int) -> tuple[str, bytes]:
        """Files as they should be, but for what a tensor or two look like."""
        state: dict[str, Any] = dict(tensors())
        for _ in range(self.draw.choice((1, 1, 2))):
            key = self.draw.choice(sorted(state))
            value = tensors()[key]
            others = [
                value.flatten()[0], value.flatten(), value[None], value[:0], value[:1],
                value[..., :-1], value.flip(0).mT if value.ndim > 1 else value[:2],
                torch.cat([value, value]), value.numpy(), value.tolist(), None,
                value.flatten()[:7].clone(), value.numpy().astype("c8"), value > 0,
            ]  # fmt: skip
            state[key] = others[turn % len(others)]
            if state[key] is None:
                del state[key]
        return "weights.pth", saved({"model": state})

    def archive(self, turn: int) -> tuple[str, bytes]:
        """Archives that are compressed, contradict themselves, or are not torch's."""
        content = self.whole["weights.pth"]
        zeros, end = bytes(1 << 24), content.rindex(b"PK\5\6")
        storage = struct.pack("<I", 1 << 31)
        pickled = zipfile.ZipFile(io.BytesIO(content)).read("archive/data.pkl")
        small, count = b"K\x08tq", b"J" + storage + b"tq"
        deflated = io.BytesIO()
        with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as target:
            target.writestr("archive/data.pkl", zeros)
        numerous = io.BytesIO()
        with zipfile.ZipFile(numerous, "w") as target:
            for name in range(3000):
                target.writestr(f"archive/data/{name}", b"")
        arrays = io.BytesIO()
        np.savez(arrays, w=np.ones(3))
        variants: list[bytes] = [
            deflated.getvalue(),
            numerous.getvalue(),
            arrays.getvalue(),
            content + content,
            content[:end] + content[end:] * 2,
            b"\0" * 100 + content,
            content + b"\0" * self.draw.randrange(1, 100),
            content[: end + 20] + struct.pack("<H", 22) + content[end:],
            content.replace(b"archive/data/1", b"archive/data/0"),
            content.replace(b"archive/data/1", b"ARCHIVE/data/1"),
            content.replace(b"archive/data.pkl", b"archive/data.pkx"),
            content.replace(b"archive/data/1", b"../../../dat/1"),
            self.with_pickle("weights.pth", pickled.replace(small, count)),
            self.with_pickle("weights.pth", pickled.replace(small, b"K\xfftq")),
            self.with_pickle(
                "weights.pth", pickled.replace(b"K\x08\x85", b"K\x99\x85")
            ),
            self.with_pickle("weights.pth", pickled.replace(b"QK\0", b"QK\x77")),
            self.with_pickle(
                "weights.pth", pickled.replace(b"K\x08\x85", b"J\xff\xff\xff\xff\x85")
            ),
            self.whole["old.pth"].replace(b"K\x08Nt", b"J\0\0\0\x7fNt"),
            self.whole["old.pth"].replace(b"QK\0K\x08\x85", b"QK\0J\0\0\0\x7f\x85"),
            content.replace(b"little", b"middle"),
        ]
        return "weights.pth", variants[turn % len(variants)]

    def safetensors(self, turn: int) -> tuple[str, bytes]:
        """Headers that are absurd."""
        content = self.whole["x.safetensors"]
        size = int.from_bytes(content[:8], "little")
        header, numbers = json.loads(content[8 : 8 + size]), content[8 + size :]
        name = self.draw.choice([key for key in header if key != "__metadata__"])
        entry = header[name]
        first, last = entry["data_offsets"]
        changes: list[dict[str, Any]] = [
            {"shape": [1 << 62, 1 << 62]}, {"shape": [-1]}, {"shape": "text"},
            {"shape": [0]}, {"shape": [1.5]}, {"shape": [[1]]}, {"shape": None},
            {"shape": [1] * 100000}, {"dtype": "F4"}, {"dtype": "F8_E8M0"},
            {"dtype": 5}, {"data_offsets": [last, first]}, {"data_offsets": [0, 1]},
            {"data_offsets": [0, 1 << 63]}, {"data_offsets": [-8, 8]},
            {"data_offsets": []}, {"dtype": "I64"}, {"dtype": "F4_X2"}, {"x": 1},
        ]  # fmt: skip
        raw: list[bytes] = [
            b"[" * 100000, b"{" + b'"a":{' * 100000, b"{}", b"null", b"[]",
            b"\xff\xfe{}",
            b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', b'{"a":1}',
            json.dumps(header | {"__metadata__": {"a": 5}}).encode(),
            json.dumps(header | {"__metadata__": {"meta": "["}}).encode(),
            json.dumps(header | {"__metadata__": {"meta": "[" * 100000}}).encode(),
            json.dumps(header | {"__metadata__": {"modules": '{"a": 5}'}}).encode(),
            json.dumps(header | {"k" * 5000: entry}).encode(),
            json.dumps({f"{i}": entry for i in range(20000)}).encode(),
            json.dumps(header | {"again": entry}).encode(),
        ]  # fmt: skip
        sizes = [1 << 63, 1 << 32, (1 << 64) - 1, 0, size - 1, size + 1, 100_000_001]
        turn %= len(changes) + len(raw) + len(sizes)
        if turn < len(sizes):
            return "x.safetensors", struct.pack("<Q", sizes[turn]) + content[8:]
        if turn < len(sizes) + len(changes):
            header[name] = entry | changes[turn - len(sizes)]
            changed = json.dumps(header).encode()
        else:
            changed = raw[turn - len(sizes) - len(changes)]
        return "x.safetensors", struct.pack("<Q", len(changed)) + changed + numbers

    def script(self, turn: int) -> tuple[str, bytes]:
        """Scripted modules that hold each other, or something else."""
        module = hostile.named("__torch__:Module") + b")\x81"
        pieces = [module + b"q\0" + hostile.table() + b"b"]
        for level in range(60):
            get = b"h" + bytes([level])
            pair = hostile.table((hostile.text("a"), get), (hostile.text("b"), get))
            pieces.append(b"0" + module + b"q" + bytes([level + 1]) + pair + b"b")
        itself = hostile.table((hostile.text("a"), b"h\0"))
        variants = [
            b"".join(pieces),
            module + b"q\0" + itself + b"b",
            module + b"K\5b",
            module,
            module + hostile.table((b"K\1", b"N")) + b"b",
            hostile.call("torch.jit._pickle.build_intlist", b"N"),
            hostile.named("__torch__:Module") + itself + b"b",
            hostile.named("__torch__:os.system") + b")R",
            b"N",
        ]
        turn %= len(variants) + 1
        if turn == len(variants):
            content = self.whole["script.pt"]
            return "script.pt", content.replace(b"/constants.pkl", b"/constanty.pkl")
        pickled = hostile.whole(variants[turn])
        return "script.pt", self.with_pickle("script.pt", pickled)

    def no_checkpoint(self, turn: int) -> tuple[str, bytes]:
        """Whatever else people have in the place of a checkpoint."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("storages"))
        array = io.BytesIO()
        np.save(array, np.ones(3))
        weights = self.whole["weights.pth"]
        contents = [
            b"", b"\0" * 1000, b"hello", b"<!DOCTYPE html><html></html>", b"\x80", b".",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            json.dumps({"model": 1}).encode(), gzip.compress(weights, mtime=0),
            archive.getvalue(), array.getvalue(), self.draw.randbytes(2000),
            "Grüße".encode(), "Grüße".encode("latin1"), b"PK\x03\x04", b"PK\x05\x06",
            b"PK\x05\x06" + bytes(18), b"\x80\x02.", b"\x80\x05\x95", b"\x80\x04}.",
            struct.pack("<Q", 2) + b"{}", weights[:4] + self.draw.randbytes(3000),
            self.whole["old.pth"][:14] + self.draw.randbytes(3000),
        ]  # fmt: skip
        if turn % 4 == 3:  # a whole file by the name of another
            name, content = self._some()
            others = [x for x in SUFFIXES if x[:3] != Path(name).suffix[:3]]
            if not name.endswith(("th", "t")):
                return "misnamed.pth", content
            return "misnamed" + self.draw.choice(others[1:]), content
        suffix = SUFFIXES[turn // 4 % len(SUFFIXES)]
        return f"x{suffix}", contents[turn % len(contents)]


def main() -> None:
    """Makes files, reads them, and prints what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the files stay")
    args = parser.parse_args()
    from trial import try_all

    folder = args.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    maker = Maker(args.seed, folder)
    files = list(maker.files(args.count))
    outcomes = try_all(files, maker)
    print(f"torch {torch.__version__}, {len(files)} files in {folder}")
    counts = Counter(o[:2] for o in outcomes)
    for (kind, result), number in sorted(counts.items()):
        print(f"  {kind:<14} {result:<10} {number:>5}")
    slowest, largest = max(o[3] for o in outcomes), max(o[4] for o in outcomes)
    print(f"  at most {slowest:.2f} s, {largest:.0f} MB")
    listed = [o for o in outcomes if o[1] not in ("refused", "read")]
    for outcome in listed:
        print(outcome[2])
    sys.exit(any(o[1] not in ("LARGE", "ended") for o in listed))


if __name__ == "__main__":
    main()
