"""The commands of the command line, a module with a function `run` for each, and what they share."""

from pathlib import Path


def check_folder(path: str) -> None:
    """Refuse to begin what could not be written in the end."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {folder} is not a folder")
