# Gradients and the state of the optimiser sharded over GPUs (DeepSpeed, ZeRO stage 2),
# for the _base_ of a config. Untested: it needs GPUs, and `pip install deepspeed`. Its
# checkpoints are folders, from which a run goes on with the same number of GPUs only.
runner_type = "FlexibleRunner"
strategy = dict(
    type="DeepSpeedStrategy",
    bf16=dict(enabled=True),
    inputs_to_half=["inputs"],
    zero_optimization=dict(stage=2, overlap_comm=True, contiguous_gradients=True),
)
optim_wrapper = dict(type="DeepSpeedOptimWrapper")
