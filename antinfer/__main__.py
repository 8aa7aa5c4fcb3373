"""``python -m antinfer``: the command line, where the script ``antinfer`` is not on the path."""

from __future__ import annotations

from antinfer.cli.app import main

if __name__ == "__main__":
    main()
