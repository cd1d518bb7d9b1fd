"""The user's home folder, and paths that begin with it or with the working folder."""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import UsageError

NO_HOME = "HOME is not set, and the user id has no home folder in the user database"


def home_folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the home folder; ``None`` if there is none.

    A container with a random user id may have none. A HOME that is not an absolute path counts as
    not set, as platformdirs treats it too: it would name another folder wherever a command is run.
    """
    home = Path(environ.get("HOME", ""))
    if home.is_absolute():
        return home
    try:
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None
    return home if home.is_absolute() else None


def absolute_path(path: str) -> Path:
    """Return the absolute path of a file; ``~`` is the home folder.

    Raises:
        UsageError: the path is in the home folder or the working folder, and there is none.
        RuntimeError: it begins with ``~name``, and there is no such user.
    """
    if path == "~" or path.startswith("~/"):
        home = home_folder()
        if home is None:
            raise UsageError(
                f"{path} cannot be found: {NO_HOME}.", "Set HOME, or give an absolute path."
            )
        return home / path[2:]
    try:
        return Path(path).expanduser().absolute()
    except FileNotFoundError:
        raise UsageError(
            f"{path} cannot be found: the working folder was deleted.",
            "Change to another folder, or give an absolute path.",
        ) from None
