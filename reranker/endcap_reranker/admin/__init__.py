"""The admin API under ``/admin/v1``: who may call it, and what it does."""
