"""What reads an episode: learners under one contract. Needs torch and episodes, no Ray, no MLflow and no files."""

import lazy_loader

# Lazy, so that configs and their help can be read without importing torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
