"""Fine-tuning by task: completes a config that names a task, from a model's folder and the data."""
