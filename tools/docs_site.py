"""mkdocs' hook for the site of docs/: pages of the repository's root, the API, and every file that a page links to.

A link that leads out of docs/ leads to a page of the site as well: a Markdown file becomes a page, source text a page
with a listing, a directory a list, and anything else is copied. So the whole site can be read from a disk.
"""

import ast
import os
import posixpath
import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LOG.md": "log.md",
    "SECURITY.md": "security.md",
}
"""Pages of the repository's root, and where the site has them."""
LISTED = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".txt": "text", ".sh": "bash", "": "text"}
"""What is shown as a listing, and its language."""
LINK = re.compile(
    r"""(\]\(|<(?:img|source)\b[^>]*?\bsrc(?:set)?=")([^)"\s]+)([)"])|^(\[[\w-]+\]: )(\S+)()$""", re.MULTILINE
)
"""A link or a picture of a page, in Markdown or in HTML."""
FENCE = re.compile(r"(^( *)```.*?^\2```[ ]*$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
API = "api.md"
SHIM, OWN_SHIM = "https://unpkg.com/iframe-worker/shim", "assets/iframe-worker.js"
"""What the theme takes from a network to search pages on a disk, and the same beside the pages."""


def site_path(path: str) -> str:
    """Where the site has a file of the repository. Raises FileNotFoundError where there is none."""
    whole = ROOT / path
    if not whole.exists():
        raise FileNotFoundError(path)
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if whole.is_dir():
        return f"files/{path}/index.md"
    if whole.suffix in LISTED:
        return f"files/{path}.md"
    return f"files/{path}"


def rewritten(text: str, here: str, wanted: set[str]) -> str:
    """A page's Markdown with its links as the site has them; `here` is the page in the repository. What it links to
    outside docs/ is added to `wanted`. A link to what does not exist stays as it is, and mkdocs complains about it.
    """

    def link(match: re.Match[str]) -> str:
        before, target, after = (match[1], match[2], match[3]) if match[1] else (match[4], match[5], match[6])
        path, hash_, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        found = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
        if (ROOT / found / "README.md").is_file():
            found = f"{found}/README.md"
        try:
            there = site_path(found)
        except FileNotFoundError:
            return match[0]
        if not found.startswith("docs/") and found not in PAGES:
            wanted.add(found)
        place = site_path(here) if (ROOT / here).exists() else f"files/{here}"
        relative = os.path.relpath(there, posixpath.dirname(place) or ".")
        return f"{before}{PurePosixPath(relative)}{hash_}{anchor}{after}"

    parts = FENCE.split(text)
    # The split gives text, a fence or code span, the fence's indentation, text, and so on.
    return "".join(
        LINK.sub(link, part) if index % 3 == 0 else part if index % 3 == 1 else ""
        for index, part in enumerate(part or "" for part in parts)
    )


def generated() -> dict[str, str | Path]:
    """Everything of the site that is no file of docs/: by its place, its Markdown, or the file that is copied."""
    made: dict[str, str | Path] = {API: api_page()}
    done: set[str] = set()
    wanted: set[str] = set()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        rewritten(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix(), wanted)
    for page, place in PAGES.items():
        made[place] = rewritten((ROOT / page).read_text(encoding="utf-8"), page, wanted)
    while wanted - done:
        path = min(wanted - done)
        done.add(path)
        made[site_path(path)] = _shown(path, wanted)
    return made


def _shown(path: str, wanted: set[str]) -> str | Path:
    whole = ROOT / path
    if whole.is_dir():
        names = sorted(p.name for p in whole.iterdir() if not p.name.startswith((".", "__pycache__")))
        wanted |= {f"{path}/{name}" for name in names if (whole / name).suffix in LISTED and (whole / name).is_file()}
        links = [f"- [{n}]({n})" if f"{path}/{n}" in wanted else f"- {n}" for n in names]
        return (
            rewritten(f"# {path}\n\n" + "\n".join(links) + "\n", f"{path}/index.md", wanted) if names else f"# {path}\n"
        )
    if whole.suffix == ".md":
        return rewritten(whole.read_text(encoding="utf-8"), path, wanted)
    if whole.suffix in LISTED:
        # A search is for pages.
        text = whole.read_text(encoding="utf-8")
        return f"---\nsearch: {{exclude: true}}\n---\n\n# {path}\n\n````{LISTED[whole.suffix]}\n{text}\n````\n"
    return whole


def api_page() -> str:
    """The reference of what `import fastslow` has, each where it is defined."""
    tree = ast.parse((ROOT / "src" / "fastslow" / "__init__.py").read_text(encoding="utf-8"))
    (home,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_HOME"
    ]
    names = sorted(ast.literal_eval(home).items())
    functions = [f"::: fastslow.{module}.{name}" for name, module in names if name[0].islower()]
    classes = [f"::: fastslow.{module}.{name}" for name, module in names if name[0].isupper()]
    about = "What `import fastslow` has. Each name is imported when it is first used."
    return "\n\n".join(["# API", about, "## Functions", *functions, "## Classes", *classes])


# -- what mkdocs calls -------------------------------------------------------------------------------------------------


def on_files(files: Any, config: Any) -> Any:
    """Add the generated files."""
    from mkdocs.structure.files import File, InclusionLevel

    for place, content in generated().items():
        level = InclusionLevel.NOT_IN_NAV if place.startswith("files/") else InclusionLevel.UNDEFINED
        if isinstance(content, Path):
            files.append(File.generated(config, place, abs_src_path=str(content), inclusion=level))
        else:
            files.append(File.generated(config, place, content=content, inclusion=level))
    files.append(File.generated(config, OWN_SHIM, abs_src_path=str(ROOT / "tools" / "site" / "iframe-worker.js")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The links of a page of docs/ as the site has them; generated pages have them already."""
    if page.file.generated_by is not None:
        return markdown
    return rewritten(markdown, f"docs/{page.file.src_uri}", set())


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Nothing of a page comes from a network."""
    return output.replace(SHIM, "../" * page.url.count("/") + OWN_SHIM)


def on_post_template(output_content: str, template_name: str, config: Any) -> str:
    """The same for the page of addresses that are none."""
    return output_content.replace(SHIM, OWN_SHIM)


# -- what is built -----------------------------------------------------------------------------------------------------

OUTSIDE = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^"'> ]+""")


def outside(site: Path) -> list[str]:
    """What pages of a built site would load from elsewhere: it is to be read without a network."""
    return [
        f"{page.relative_to(site)}: {found}"
        for page in sorted(site.rglob("*.html"))
        for found in OUTSIDE.findall(page.read_text(encoding="utf-8"))
        if 'rel="canonical"' not in found and "rel=canonical" not in found
    ]


if __name__ == "__main__":
    loaded = outside(Path(sys.argv[1]))
    sys.exit("\n".join(["these pages load something from elsewhere:", *loaded]) if loaded else 0)
