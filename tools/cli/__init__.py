"""The command ``mim-plugins``, which starts without importing the package."""
