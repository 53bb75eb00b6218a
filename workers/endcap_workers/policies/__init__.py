"""Learning ranking policies from the rankings log, and judging them before they serve."""
