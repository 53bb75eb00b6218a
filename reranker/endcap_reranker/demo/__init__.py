"""The demo: a shop on 1.47 million real grocery purchases (the Complete Journey), ready to try by ``endcap demo``."""
