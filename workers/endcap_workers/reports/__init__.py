"""Reports on fraud and inventory: made from the event log, rendered, kept, sent."""
