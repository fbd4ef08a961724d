"""Files that come with an installed package, named as `package:NAME/PATH`, for example `package:fastslow.lab/model`."""

import os
from importlib import resources
from pathlib import Path

from fastslow.errors import ConfigError
from fastslow.text import shown

PREFIX = "package:"
PACKAGE = Path(__file__).parent
SHIPPED, CHECKOUT = PACKAGE / "shipped", PACKAGE.parents[1]
"""Where a wheel has the pages and configs that messages name, and where a checkout has them."""
KINDS = {"docs": ".md", "configs": ".yaml"}


def pages() -> dict[str, Path]:
    """Every page and config by the name that messages have for it."""
    root = SHIPPED if SHIPPED.is_dir() else CHECKOUT
    return {
        path.relative_to(root).as_posix(): path
        for folder, suffix in KINDS.items()
        for path in sorted((root / folder).rglob(f"*{suffix}"))
    }


def resolve_path(name: str, field: str) -> str:
    """A path as it stands, or the path of a package's file. Raises ConfigError, naming `field`, where there is none."""
    if not name.startswith(PREFIX):
        return name
    package, _, path = name.removeprefix(PREFIX).partition("/")
    if not path or ".." in path.split("/"):
        raise ConfigError(
            f"{field}: {shown(name)} leads out of the package. Write it as package:NAME/PATH, without '..'"
        )
    try:
        found = Path(str(resources.files(package).joinpath(path)))
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(
            f"{field}: {shown(name)}: there is no package {shown(package)}. Write it as package:NAME/PATH"
        ) from error
    if not os.path.exists(found):  # unlike Path.exists, also for a name that is too long for any file
        raise ConfigError(f"{field}: {shown(name)}: package {package!r} has no file {shown(path)}")
    return str(found)
