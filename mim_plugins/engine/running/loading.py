"""Batches of a loader, whose loading processes are replaced where they fail."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Generator, Iterator
from multiprocessing.connection import wait
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader, Sampler
from torch.utils.data._utils import signal_handling

from ...datasets.seeding import preserve_rng_state

# Seconds without a batch after which workers are taken to stand still, where the loader
# has no `timeout` of its own; the first batch from a slow disk may take a minute.
TIMEOUT = 300

# Seconds after which a worker that has died is noticed.
_POLL = 5

# Replacements in a row without a batch in between.
_MOST = 3


def sampler_of(loader: DataLoader) -> Any:
    """The sampler of single images behind a loader's batches.

    Args:
        loader: The loader.
    """
    return getattr(loader.batch_sampler, "sampler", loader.sampler)


def batches(
    loader: DataLoader, done: int = 0, name: str = "train_dataloader"
) -> Generator[Any, None, None]:
    """The batches of an epoch; the first ones are not loaded.

    Where a loading process dies, or none gives a batch for the loader's ``timeout``,
    all are replaced, and loading goes on at the batch that is missing: the same one, if
    the sampler gives an epoch's order again and samples follow from their index.

    What loads the rest of an epoch is a loader of its own, since torch's has no way to
    begin elsewhere; the next epoch uses the given one and its persistent workers.

    Args:
        loader: The loader.
        done: Batches to leave out.
        name: What the loader is in a config.

    Raises:
        RuntimeError: If that happens several times in a row at one batch.
    """
    failures = 0
    while True:
        attempt = _Attempt(rest_of(loader, done) if done else loader)
        try:
            for batch in attempt:
                yield batch
                done, failures = done + 1, 0
            return
        except _WorkersFailedError as error:
            failures += 1
            if failures > _MOST:
                raise RuntimeError(
                    f"loading failed {failures} times at batch {done + 1} of the "
                    f"epoch: {error}. A process that is killed often means too little "
                    f"memory, also in /dev/shm: try fewer ({name}.num_workers). If "
                    f"reading takes long, allow more seconds ({name}.timeout)"
                ) from error
            MMLogger.get_current_instance().warning(
                f"{error}: all loading processes are replaced, and loading goes on at "
                f"batch {done + 1} of the epoch (attempt {failures} of {_MOST})"
            )
        finally:
            attempt.close()
        _begin_again(loader)


def rest_of(loader: DataLoader, done: int) -> DataLoader:
    """A loader of what is left of an epoch.

    Args:
        loader: The loader of all.
        done: Batches to leave out.
    """
    return DataLoader(
        loader.dataset,
        batch_sampler=_Rest(loader.batch_sampler, done),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


class _WorkersFailedError(RuntimeError):
    """A loading process has died or stands still."""


class _Rest(Sampler[list[int]]):
    """The batches of an epoch after the first ones."""

    def __init__(self, batches: Any, done: int) -> None:
        self.batches, self.done = batches, done

    def __len__(self) -> int:
        return max(0, len(self.batches) - self.done)

    def __iter__(self) -> Iterator[list[int]]:
        for number, batch in enumerate(self.batches):
            if number >= self.done:
                yield batch


class _Attempt:
    """The batches of a loader, until one of its workers fails.

    torch looks after workers when it has waited for a batch as long as the loader's
    timeout. Here that is a few seconds, and it is asked again, until a thread has found
    that workers stand still, and killed them. torch's own limit leaves out that a
    worker is waited for, too, while it hands over the memory of a batch, or is in the
    middle of a message: the pipe never ends, since all processes hold its other end.
    """

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        self._limit = loader.timeout or TIMEOUT
        self._iterator: Any = None
        self._workers: list[Any] = []
        # Since when a batch has been waited for, and for how long if that was too long.
        self._since: float | None = None
        self._waited = 0.0
        self._ended = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        if self._loader.num_workers:
            threading.Thread(target=self._watch, daemon=True).start()
        self._since = time.monotonic()
        try:
            self._begin()
            while True:
                try:
                    batch = next(self._iterator)
                except StopIteration:
                    return
                except RuntimeError as error:
                    if not str(error).startswith("DataLoader timed out"):
                        raise
                    continue
                self._since = None
                yield batch
                self._since = time.monotonic()
        except (RuntimeError, EOFError, OSError) as error:
            if not self._workers_failed(error):
                raise
            raise _WorkersFailedError(self._end_workers()) from error

    def _watch(self) -> None:
        """Kills workers that give nothing for too long; the main thread notices."""
        while not self._ended.wait(min(1.0, self._limit / 4)):
            since = self._since
            waited = 0.0 if since is None else time.monotonic() - since
            if waited >= self._limit:
                self._waited = waited
            elif waited < _POLL or not self._dead(timeout=0):
                continue
            for worker in self._workers:
                worker.kill()
            if self._iterator is not None:
                self._iterator._worker_result_queue._writer.close()
            return

    def _workers_failed(self, error: Exception) -> bool:
        """Whether an error is that of a worker, and not of a data set in it."""
        if isinstance(error, RuntimeError):
            # Of a data set's own errors the class is named first.
            return str(error).startswith(("DataLoader worker (pid", "DataLoader timed"))
        # It died while it handed over a batch.
        return "in DataLoader worker" not in str(error) and self._dead(timeout=1)

    def _dead(self, timeout: float) -> bool:
        """Whether a worker has died, or does within so many seconds."""
        return bool(wait([worker.sentinel for worker in self._workers], timeout))

    def _begin(self) -> None:
        """Starts the workers, or has those of the epoch before go on."""
        loader, watched = self._loader, self._loader.num_workers > 0
        self._workers = list(getattr(loader._iterator, "_workers", []))
        before = _child_handler()
        if watched:
            loader.timeout = min(_POLL, self._limit)
        try:
            # It draws a seed for workers.
            with preserve_rng_state():
                self._iterator = iter(loader)
        finally:
            if watched:
                loader.timeout = self._limit
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGCHLD, before)
        self._workers = list(getattr(self._iterator, "_workers", []))

    def _end_workers(self) -> str:
        """Kills all workers: one that was stopped ends no other way.

        Returns:
            What had happened to them.
        """
        dead = not self._waited and [
            f"{worker.pid} (exit code {worker.exitcode})"
            for worker in self._workers
            if worker.exitcode
        ]
        pids = ", ".join(str(worker.pid) for worker in self._workers)
        for worker in self._workers:
            worker.kill()
        self._loader._iterator = None
        if dead:
            return f"loading process {', '.join(dead)} has died"
        return f"no batch for {self._waited:.0f} s from the loading processes {pids}"

    def close(self) -> None:
        """Ends the loading processes, whatever still refers to this object."""
        self._ended.set()
        self._iterator, self._workers = None, []


def _child_handler() -> Any:
    """What happens when a child process ends, without what torch's loaders do then.

    Theirs raises in the middle of whatever the training does; the first loader that
    anything iterates over sets it, for good.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    if getattr(handler, "__module__", None) == signal_handling.__name__:
        return signal.SIG_DFL
    return handler or signal.SIG_DFL


def _begin_again(loader: DataLoader) -> None:
    """Lets a sampler that is one long iterator draw from the start."""
    sampler = sampler_of(loader)
    if isinstance(sampler, InfiniteSampler):
        sampler.indices = sampler._indices_of_rank()
