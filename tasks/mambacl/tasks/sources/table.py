"""A CSV or parquet list of image files with a column of classes."""

import pandas as pd

from mambacl.tasks.config import ConfigError, nearest
from mambacl.tasks.images_config import ImagesConfig
from mambacl.tasks.sources.files import is_url, open_file
from mambacl.tasks.sources.listing import Listing

SUFFIXES = (".csv", ".parquet")


def read_table(config: ImagesConfig, path: str) -> pd.DataFrame:
    """Columns path, class, and those of config.domain and config.group, as text. Raises ConfigError that names what is missing."""
    try:
        with open_file(path) as file:
            # Names stay text: 007 is a class of its own, and so is NA.
            table = (
                pd.read_csv(file, dtype=str, keep_default_na=False) if path.endswith(".csv") else pd.read_parquet(file)
            )
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"task.path: {path} cannot be read as a list: {' '.join(str(error).split())}") from None
    wanted = {"path": "task.path", "class": "task.path"}
    wanted |= {column: f"task.{field}" for field in ("domain", "group") if (column := getattr(config, field))}
    for column, field in wanted.items():
        if column not in table:
            names = [str(name) for name in table]
            raise ConfigError(
                f"{field}: {path} has no column {column!r}{nearest(column, names)}; columns: {', '.join(names)}"
            )
        empty = (table[column].isna() | (table[column].astype(str) == "")).to_numpy()
        if empty.any():
            raise ConfigError(f"{field}: {path} has no {column} in row {empty.argmax() + 1}")
    return table.astype(dict.fromkeys(wanted, str))


def image_paths(path: str, table: pd.DataFrame) -> list[str]:
    """The images' paths; those that are not absolute start at the list's folder."""
    folder = path[: path.rfind("/") + 1]
    return [name if name.startswith("/") or is_url(name) else folder + name for name in table["path"]]


def list_table(config: ImagesConfig, path: str) -> Listing:
    """The images of a list; repeated rows would put one image into support and queries alike, so they are refused."""
    table = read_table(config, path)
    repeated = table["path"].duplicated().to_numpy()
    if repeated.any():
        raise ConfigError(f"task.path: {path} lists {table['path'].to_numpy()[repeated][0]} more than once")
    return Listing.of(
        path=image_paths(path, table),
        label=table["class"].to_numpy(str),
        domain=table[config.domain].to_numpy(str) if config.domain else None,
        group=table[config.group].to_numpy(str) if config.group else None,
        where=path,
    )
