"""Caches of images and features of frozen encoders, made on the whole cluster before a run reads them."""
