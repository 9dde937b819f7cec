"""What MkDocs is told besides `mkdocs.yml`: links from the docs into the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"\[(?P<label>[^\[\]]*)\]\((?P<target>(?:\.\./)+[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Links to files of the repository outside `docs/` lead there, or nowhere while the site has no `repo_url`.

    Raises FileNotFoundError for a link to nothing.
    """
    here = Path(page.file.abs_src_path).parent

    def point(link: re.Match[str]) -> str:
        target = (here / link["target"]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return link[0]
        if not target.exists():
            raise FileNotFoundError(f"{page.file.src_path} links to {link['target']}, which is not there")
        path = target.relative_to(ROOT).as_posix()
        return f"[{link['label']}]({config.repo_url}/blob/main/{path})" if config.repo_url else link["label"]

    return _LINK.sub(point, markdown)
