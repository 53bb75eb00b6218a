"""Subcommands of the ``endcap`` command that need only the library."""
