"""Experiments: the service's increment over a sequence of tasks, in process and without the service."""
