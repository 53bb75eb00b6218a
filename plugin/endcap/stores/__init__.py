"""Where state is kept: the event log, the profiles."""
