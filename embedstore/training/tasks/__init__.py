"""What a target asks of a head: one file a task, on `Task` in ``base.py``."""
