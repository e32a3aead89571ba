"""What the records mean. Reads files with pandas and numpy; never torch, never mlflow."""
