"""Studies: several learners trained, evaluated and shown side by side."""
