"""On Python 3.11 pydantic refuses typing.TypedDict, which SkyRL 0.3.0 uses in its models."""

import sys
import typing

import typing_extensions

if sys.version_info < (3, 12):
    typing.TypedDict = typing_extensions.TypedDict
