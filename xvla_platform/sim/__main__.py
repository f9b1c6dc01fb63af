"""``python -m xvla_platform.sim``: the record command without the rest of the command line."""

from xvla_platform.sim.plugin import record

if __name__ == "__main__":
    record()
