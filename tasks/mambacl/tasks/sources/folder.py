"""Image folders: one folder a class, or folders of domains or groups that have one folder a class."""

from mambacl.tasks.sources.files import File
from mambacl.tasks.sources.listing import SUFFIXES, Listing


def list_folder(root: str, files: list[File], layout: str = "class") -> Listing:
    """root: a path or URL; files: all files below it. Images may lie deeper than their class folder.

    layout: the meaning of the outermost folders, `class`, `domain/class` or `group/class`.
    """
    depth = layout.count("/") + 1
    found = [(file.name, parts) for file in files if len(parts := file.name.split("/")) > depth and is_image(parts[-1])]
    outer = [parts[0] for _, parts in found]
    return Listing.of(
        path=[f"{root.rstrip('/')}/{name}" for name, _ in found],
        # Classes of two groups may have the same name (character01 of each alphabet); those of domains are the same class.
        label=["/".join(parts[:depth]) if layout == "group/class" else parts[depth - 1] for _, parts in found],
        domain=outer if layout == "domain/class" else None,
        group=outer if layout == "group/class" else None,
        where=f"{root}, read as {layout} folders,",
    )


def is_image(name: str) -> bool:
    """Whether PIL knows a format by the file's suffix."""
    return name[name.rfind(".") :].lower() in SUFFIXES


def below(folder: str, files: list[File]) -> list[File]:
    """Those of the files that lie below the folder, named from it."""
    start = f"{folder}/"
    return [file._replace(name=file.name[len(start) :]) for file in files if file.name.startswith(start)]
