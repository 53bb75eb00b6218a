"""Judgements on real data: each module is one protocol, printed by ``endcap evaluate NAME``."""
