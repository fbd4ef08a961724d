"""BM25 over a corpus of pages, by the library bm25s: an index that is made once, kept on disk and mapped into memory.

A corpus is a JSONL file, {"title": text, "text": text or list of sentences} a line, or a .tar.gz that holds one; title
and text are indexed together. The parameters and English stems are those that the HoVer programs of DSPy and GEPA use.
Nothing is pickled: arrays are .npy files that are read without pickle, the rest is JSON.
"""

import json
import logging
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fastslow.errors import ConfigError, TaskError

HUB = "hub:"
PAGES_FILE = "pages.jsonl"
SETTINGS_FILE = "fastslow.json"
K1, B, LANGUAGE = 0.9, 0.4, "english"


@dataclass(frozen=True)
class Page:
    """A page of the corpus."""

    title: str
    text: str


class PageIndex:
    """The index of a corpus in a directory; it is made there where it is not yet.

    Raises: ConfigError where a package is missing, TaskError for a corpus that cannot be read or another one's index.
    """

    _bm25: Any
    _pages: Any

    def __init__(self, corpus: str, directory: str) -> None:
        self._bm25s, self._stemmer = import_bm25s()
        path = Path(directory)
        settings = {"corpus": corpus, "k1": K1, "b": B, "language": LANGUAGE}
        if not (path / SETTINGS_FILE).is_file():
            self._make(corpus, path, settings)
        _check_settings(path, settings)
        try:
            self._bm25 = self._bm25s.BM25.load(path, mmap=True, load_corpus=False, allow_pickle=False)
            self._pages = self._bm25s.utils.corpus.JsonlCorpus(path / PAGES_FILE, show_progress=False, verbosity=0)
        except (OSError, ValueError, KeyError) as error:
            raise TaskError(
                f"task.options.index: {directory!r} is damaged: {error}. Delete it to make it anew"
            ) from error

    @classmethod
    def of(cls, pages: Sequence[Page]) -> "PageIndex":
        """The index of a few pages, in memory. Raises ConfigError where a package is missing."""
        made = cls.__new__(cls)
        made._bm25s, made._stemmer = import_bm25s()
        made._bm25 = made._bm25s.BM25(k1=K1, b=B)
        made._bm25.index(made._tokens([_indexed(page) for page in pages]), show_progress=False)
        made._pages = [{"title": page.title, "text": page.text} for page in pages]
        return made

    def __len__(self) -> int:
        return len(self._pages)

    def __getitem__(self, number: int) -> Page:
        return Page(**self._pages[int(number)])

    def search(self, queries: Sequence[str], k: int) -> list[list[int]]:
        """Numbers of the k best pages for each query, best first; fewer where fewer share a word with it."""
        if not queries:
            return []
        found = self._bm25.retrieve(
            self._tokens(queries),
            k=min(k, len(self)),
            show_progress=False,
            n_threads=-1 if len(queries) > 1 else 0,
            backend_selection="numpy",
        )
        return [
            [int(number) for number, score in zip(numbers, scores, strict=True) if score > 0]
            for numbers, scores in zip(found.documents, found.scores, strict=True)
        ]

    def _tokens(self, texts: Sequence[str] | Iterator[str], return_ids: bool = False) -> Any:
        return self._bm25s.tokenize(
            texts, stopwords="en", stemmer=self._stemmer, return_ids=return_ids, show_progress=False
        )

    def _make(self, corpus: str, path: Path, settings: dict[str, object]) -> None:
        """The index appears in its place when it is complete."""
        if path.exists() and any(path.iterdir()):
            raise TaskError(f"task.options.index: {str(path)!r} holds other files: name a new directory")
        path.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f"{path.name}.making.", dir=path.parent))
        try:
            with (making / PAGES_FILE).open("w", encoding="ascii") as pages:
                tokens = self._tokens(_copied(read_pages(corpus), pages), return_ids=True)
            if not tokens.vocab:
                raise TaskError(f"task.options.corpus: {corpus!r} holds no words")
            index = self._bm25s.BM25(k1=K1, b=B)
            index.index(tokens, show_progress=False)
            index.save(making, allow_pickle=False)
            lines = self._bm25s.utils.corpus.find_newline_positions(making / PAGES_FILE, show_progress=False)
            self._bm25s.utils.corpus.save_mmindex(lines, making / PAGES_FILE)
            (making / SETTINGS_FILE).write_text(json.dumps(settings), encoding="utf-8")
            os.replace(making, path)
        finally:
            shutil.rmtree(making, ignore_errors=True)


def import_bm25s() -> tuple[Any, Any]:
    """The package bm25s and an English stemmer. Raises ConfigError that names the extra where one is missing."""
    try:
        import bm25s
        import Stemmer
    except ImportError as error:
        raise ConfigError(f"task.name: {error.name} is not installed: pip install 'fastslow[hover]'") from error
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it comes set to DEBUG
    return bm25s, Stemmer.Stemmer(LANGUAGE)


def read_pages(corpus: str) -> Iterator[Page]:
    """The pages of a corpus: a .jsonl or .tar.gz file, or `hub:OWNER/REPOSITORY/FILE` for one on the hub.

    Raises: TaskError for a corpus that is missing, or a line that is no page.
    """
    with _opened(_local(corpus)) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                title, text = record["title"], record["text"]
                yield Page(title.strip(), text.strip() if isinstance(text, str) else " ".join(map(str.strip, text)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise TaskError(
                    f"task.options.corpus: {corpus}, line {number}: a page is {{title: text, text: text or list of "
                    f"texts}}: {type(error).__name__}: {error}"
                ) from error


def _copied(pages: Iterator[Page], file: IO[str]) -> Iterator[str]:
    """The texts to index, while the pages are written down."""
    for page in pages:
        file.write(json.dumps({"title": page.title, "text": page.text}) + "\n")
        yield _indexed(page)


def _indexed(page: Page) -> str:
    return f"{page.title} | {page.text}"


def _local(corpus: str) -> Path:
    if corpus.startswith(HUB):
        return _from_hub(corpus)
    if not Path(corpus).is_file():
        raise TaskError(f"task.options.corpus: file {corpus!r} does not exist")
    return Path(corpus)


def _from_hub(corpus: str) -> Path:
    from huggingface_hub import hf_hub_download

    owner, _, rest = corpus.removeprefix(HUB).partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository or not file:
        raise ConfigError(f"task.options.corpus: {corpus!r}: write it as {HUB}OWNER/REPOSITORY/FILE")
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except Exception as error:  # the hub and the network raise errors of their own
        raise TaskError(
            f"task.options.corpus: {corpus!r} cannot be downloaded: {error}. Or download the file and give its path"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of a JSONL file, or of the only one in a .tar.gz: nothing is unpacked to disk."""
    if not path.name.endswith((".tar.gz", ".tgz")):
        with path.open("rb") as lines:
            yield lines
        return
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() and member.name.endswith(".jsonl") else None
                if file is not None:
                    yield file
                    return
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise TaskError(f"task.options.corpus: {str(path)!r} is no whole .tar.gz: {error}") from error
    raise TaskError(f"task.options.corpus: {str(path)!r} holds no .jsonl file")


def _check_settings(path: Path, wanted: dict[str, object]) -> None:
    try:
        found = json.loads((path / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TaskError(f"task.options.index: {str(path)!r} is damaged: {error}. Delete it to make it anew") from error
    if found != wanted:
        raise TaskError(
            f"task.options.index: {str(path)!r} was made with {found}, wanted is {wanted}: name another directory, or "
            "delete it to make it anew"
        )
