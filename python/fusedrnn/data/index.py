"""Packages as pip would find them, downloaded and nothing more: nothing of them is built, installed or run.

pip itself builds a source archive in order to download it, with whatever setuptools is the newest. So `unearth` looks
the file up, in the folders and indexes that pip is configured for, and it is kept only if its hash is the one pinned.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import logging
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusedrnn.extras import how_to_install

ARCHIVE_LIMIT = 64 << 20  # bytes of one archive
_DEFAULT_INDEX = "https://pypi.org/simple/"
_SECONDS = 60


def download(requirement: str, folder: Path) -> str:
    """Put the file that `requirement`, ``NAME==VERSION --hash=sha256:...``, pins into `folder`, which is made.

    Returns why it could not be had, in words, or nothing. The first of pip's sources that has it counts. Files whose
    listed hash is another are not fetched; where none is listed the content decides.
    """
    try:
        from unearth import PackageFinder
        from unearth.auth import MultiDomainBasicAuth
        from unearth.fetchers.sync import PyPIClient
    except ImportError:
        return f"the package unearth is not installed; {how_to_install('train')}"
    package, _, pinned = requirement.partition(" --hash=sha256:")
    folder.mkdir()
    options = pip_options()
    hosts = options.get("trusted-host", "").split()
    folders = [place for place in options.get("find-links", "").split() if "://" in place or os.path.exists(place)]
    indexes = [options.get("index-url", _DEFAULT_INDEX), *options.get("extra-index-url", "").split()]
    if options.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        indexes = []
    complaints = [] if folders or indexes else ["pip is configured with no index and no folder"]
    try:
        with PyPIClient(trusted_hosts=hosts, **_connection(options)) as session, _warnings_into(complaints):
            session.auth = MultiDomainBasicAuth(prompting=False, index_urls=indexes)
            for source in [{"find_links": [place]} for place in folders] + [{"index_urls": [url]} for url in indexes]:
                finder = PackageFinder(session, **source, trusted_hosts=hosts, ignore_compatibility=True)
                try:
                    for found in finder.find_matches(package, allow_yanked=True):
                        listed = (found.link.hash_option or {}).get("sha256", [pinned])
                        if pinned in listed and _stored(session, found.link, folder, pinned):
                            return ""
                except Exception as error:  # of httpx or of httpx2, by unearth's version
                    complaints.append(f"{_place(source)}: {error or type(error).__name__}")
                else:
                    complaints.append(f"{_place(source)}: has no file of {package} with the hash that is pinned")
    except (OSError, ValueError) as error:  # a certificate or proxy that cannot be used
        complaints.append(str(error))
    return "; ".join(dict.fromkeys(complaints))


def _connection(options: dict[str, str]) -> dict[str, Any]:
    settings: dict[str, Any] = {"follow_redirects": True}
    settings["timeout"] = float(options.get("timeout", options.get("default-timeout", 15)))
    bundle, client = options.get("cert", os.environ.get("REQUESTS_CA_BUNDLE")), options.get("client-cert")
    if bundle or client:
        folder = bundle is not None and os.path.isdir(bundle)
        settings["verify"] = context = ssl.create_default_context(
            cafile=None if folder else bundle, capath=bundle if folder else None
        )
        if client:
            context.load_cert_chain(client)
    if proxy := options.get("proxy"):
        settings["proxy"] = proxy
    return settings


def _place(source: dict[str, list[str]]) -> str:
    """Without a password that it may hold."""
    return re.sub(r"//[^/@]*@", "//", next(iter(source.values()))[0])


def _stored(session: Any, link: Any, folder: Path, pinned: str) -> bool:
    """Whether the content has the pinned hash; it is hashed on the way to the disk, which no more than that reaches."""
    digest, size = hashlib.sha256(), 0
    path = folder / Path(link.filename).name
    with session.get_stream(link.normalized) as response, open(path, "wb") as file:
        response.raise_for_status()
        for chunk in response.iter_bytes():
            size += len(chunk)
            if size > ARCHIVE_LIMIT:
                break
            digest.update(chunk)
            file.write(chunk)
    if size <= ARCHIVE_LIMIT and digest.hexdigest() == pinned:
        return True
    path.unlink()
    return False


@contextlib.contextmanager
def _warnings_into(complaints: list[str]) -> Iterator[None]:
    """unearth logs what it could not reach, which would go to the console."""

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(record.getMessage())

    logger, handler = logging.getLogger("unearth"), Keep(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def pip_options() -> dict[str, str]:
    """What pip would go by in ``pip download``: its files, then those of that command, then the environment."""
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        lines = done.stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        lines = []
    found = [match.groups() for line in lines if (match := re.fullmatch(r"(global|download)\.([\w-]+)=(.*)", line))]
    options: dict[str, str] = {}
    for section in ("global", "download"):
        options |= {key: str(ast.literal_eval(value)) for where, key, value in found if where == section}
    given = {key[4:].lower().replace("_", "-"): value for key, value in os.environ.items() if key.startswith("PIP_")}
    return {key: value for key, value in {**options, **given}.items() if value}
