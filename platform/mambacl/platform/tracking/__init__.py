"""MLflow as a picture of what is on disk: run folders hold the truth, and can be delivered at any time, any number of times."""
