"""``python -m endcap``: the command, for launchers that want a module (torchrun)."""

from endcap.cli import main

main()
