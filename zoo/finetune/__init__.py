"""Fine-tuning by task: a config that names one, filled in by the folder of a model and by the data."""
