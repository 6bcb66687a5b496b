"""The commands of the command line, a module with a function `run` for each, and what they share."""

from pathlib import Path


def check_output(path: str, data: str = "-") -> None:
    """Refuse to begin what could not be written in the end, or would take the place of the data."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {folder} is not a folder")
    if data != "-" and Path(path).exists() and Path(data).exists() and Path(path).samefile(data):
        raise ValueError(f"{path} is the file that is read: give the output another name")
