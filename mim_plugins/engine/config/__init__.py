"""From a config file to what a runner is built from."""
