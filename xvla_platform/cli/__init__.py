"""The `xvla` command: the only layer that imports click or prints."""
