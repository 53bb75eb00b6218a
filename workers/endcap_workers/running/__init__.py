"""Running jobs: a worker process that needs no broker, and the process in which one run happens."""
