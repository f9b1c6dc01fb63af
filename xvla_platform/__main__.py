"""`python -m xvla_platform`: the `xvla` command without its installed script."""

from xvla_platform.cli.main import main

if __name__ == "__main__":
    main()
