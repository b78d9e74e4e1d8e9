"""The global batch of a run, which a resumed run keeps."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from .settings import GlobalBatch


class SameBatchHook(Hook):
    """Saves the global batch in checkpoints, and refuses to resume with another one.

    A checkpoint restores the learning rate and the schedules, which mmengine counts in
    iterations. With another number of images per iteration the schedule would end too
    early or too late, and with other accumulation the learning rate would be that of
    the old batch, whatever the log says; two batches of one size that are accumulated
    differently have other iterations, too.

    Args:
        batch: The batch of this run; None, if the config does not say, checks nothing.
        resuming: Whether the run resumes from the loaded checkpoint, rather than only
            using its weights.
    """

    def __init__(self, batch: GlobalBatch | None, resuming: bool) -> None:
        self.batch = batch
        self.resuming = resuming

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the batch along with epoch and iteration.

        Args:
            runner: The runner of the training process.
            checkpoint: What is about to be written.
        """
        if self.batch is not None:
            checkpoint["meta"]["global_batch"] = self._as_dict(self.batch)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the batch of the checkpoint with this run's.

        Args:
            runner: The runner of the training process.
            checkpoint: What was read.

        Raises:
            ValueError: If they differ, or the checkpoint is no run's; mmengine has not
                restored anything by then.
        """
        if self.resuming and "epoch" not in checkpoint.get("meta", {}):
            raise ValueError(
                "--resume: this checkpoint holds weights alone, such as an official or "
                "a converted file; a run goes on only from one it saved itself. To "
                "start from these weights: --cfg-options load_from=CHECKPOINT"
            )
        if not self.resuming or self.batch is None:
            return
        old = checkpoint.get("meta", {}).get("global_batch")
        new = self._as_dict(self.batch)
        if old is None:
            runner.logger.info(
                "resume: the checkpoint does not say its global batch; its learning "
                f"rate and schedule match this run's batch of {self.batch.size} only "
                "if it is the same"
            )
        elif old != new:
            raise ValueError(
                "--resume: the checkpoint was trained with a global batch of "
                f"{_describe(old)}, but this run has {_describe(new)}. Going on would "
                "keep the learning rate and the schedule of the old batch. Either "
                "resume with the same batch: train_dataloader.batch_size x processes "
                f"= {old['per_iteration']} (now {self.batch.per_process} x "
                f"{self.batch.processes}), optim_wrapper.accumulative_counts="
                f"{old['accumulated']}; or start a new schedule from these weights: "
                "--cfg-options load_from=CHECKPOINT instead of --resume"
            )

    @staticmethod
    def _as_dict(batch: GlobalBatch) -> dict[str, int]:
        return dict(per_iteration=batch.per_iteration, accumulated=batch.accumulated)


def _describe(saved: dict[str, int]) -> str:
    images, accumulated = saved["per_iteration"], saved["accumulated"]
    return (
        f"{images * accumulated} ({images} per iteration x {accumulated} accumulated)"
    )
