# Parameters, gradients and the optimiser's state sharded over the GPUs (fully sharded
# data parallel), block by block; see mim_plugins/engine/sharding.py.

# The runner that loads the pre-trained weights before it shards.
runner_type = "FlexibleRunner"
strategy = dict(
    type="ResumableFSDPStrategy",
    model_wrapper=dict(
        type="MMFullyShardedDataParallel",
        use_orig_params=True,
        # Not by size: heads of detectors and segmentors are called by other methods
        # than forward, before which nothing would gather their shards.
        auto_wrap_policy="shard_transformer_blocks",
    ),
    # Checkpoints are complete, so that tools/test.py reads them with the plain config,
    # and a run goes on with any number of GPUs.
    state_dict_cfg="full",
)
