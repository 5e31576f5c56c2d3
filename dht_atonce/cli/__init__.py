"""The `atonce` command: the only place that prints. Floor 6."""
