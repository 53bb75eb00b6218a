"""The background jobs, each a thin call of a plain function. Heavy imports happen when one runs."""
