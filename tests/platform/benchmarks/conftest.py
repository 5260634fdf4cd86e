import importlib
import sys
import textwrap

import pytest


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Imports a module of this text, which processes of sides find, too."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text):
        (tmp_path / "written_sides.py").write_text(textwrap.dedent(text))
        return importlib.import_module("written_sides")

    yield write
    sys.modules.pop("written_sides", None)
