"""Keeping the libraries underneath from speaking in between, in our commands and in the processes that these start."""

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Progress bars and deprecation notes of the libraries underneath would tear our own display apart."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.|peft\.")
    # Where an installer compiles nothing, their files are compiled at the first import, and say what is odd about them.
    warnings.filterwarnings("ignore", category=SyntaxWarning, module=r".*site-packages.*")
    # peft imports it where it is installed, and it tells of kernels that nobody asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
