"""One module a command of `mambacl`, named as it."""
