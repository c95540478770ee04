"""Fetches pinned wheels and unpacks the native libraries and headers they carry.

Usage: fetch_wheels.py LIST.json GROUP CACHE_DIR

Looks the files up in the package index that pip is configured for (so an on-premises mirror works), downloads with
visible progress, continues broken downloads, checks SHA-256 before anything is unpacked, and unpacks each wheel into a
temporary folder that is renamed into place, so that an interrupted run leaves nothing half-done. Standard library only.
"""

import concurrent.futures
import fcntl
import hashlib
import html.parser
import json
import os
import platform
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile

INDEX_TYPE = "application/vnd.pypi.simple.v1+json"


def pip_setting(name):
    """A value of pip's own configuration, or None."""
    value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if value:
        return value
    done = subprocess.run([sys.executable, "-m", "pip", "config", "get", "global." + name], capture_output=True, text=True)
    return done.stdout.strip() or None if done.returncode == 0 else None


def default_index():
    try:
        from pip._internal.models.index import PyPI

        return PyPI.simple_url
    except ImportError:
        sys.exit("pip is needed to look up the package index: apt-get install -y python3-pip")


def opener():
    cert = pip_setting("cert")
    context = ssl.create_default_context(cafile=cert if cert and os.path.isfile(cert) else None)
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))


def find_url(web, index, package, file):
    request = urllib.request.Request(f"{index.rstrip('/')}/{package}/", headers={"Accept": INDEX_TYPE + ", text/html;q=0.1"})
    with web.open(request, timeout=60) as answer:
        body, kind, base = answer.read(), answer.headers.get_content_type(), answer.geturl()
    if kind == INDEX_TYPE:
        for entry in json.loads(body)["files"]:
            if entry["filename"] == file:
                return urllib.parse.urljoin(base, entry["url"])
    else:

        class Links(html.parser.HTMLParser):
            found = None

            def handle_starttag(self, tag, attrs):
                href = dict(attrs).get("href", "")
                if tag == "a" and href.split("#")[0].rsplit("/", 1)[-1] == file:
                    self.found = urllib.parse.urljoin(base, href.split("#")[0])

        parser = Links()
        parser.feed(body.decode("utf-8", "replace"))
        if parser.found:
            return parser.found
    sys.exit(f"the package index has no {file}; is the mirror complete?")


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(web, url, target, size, digest, label):
    part = target + ".part"
    for attempt in range(6):
        have = os.path.getsize(part) if os.path.exists(part) else 0
        if have < size:
            try:
                request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
                with web.open(request, timeout=60) as answer:
                    if have and answer.status != 206:
                        have = 0
                    started = shown = time.monotonic()
                    begin = have
                    with open(part, "ab" if have else "wb") as out:
                        while block := answer.read(1 << 20):
                            out.write(block)
                            have += len(block)
                            now = time.monotonic()
                            if now - shown > (0.5 if sys.stderr.isatty() else 5) or have == size:
                                rate = (have - begin) / max(now - started, 1e-3) / 1e6
                                end = "\r" if sys.stderr.isatty() and have < size else "\n"
                                print(f"  {label}: {have / 1e6:.0f} of {size / 1e6:.0f} MB, {rate:.0f} MB/s ", end=end, file=sys.stderr, flush=True)
                                shown = now
            except (OSError, urllib.error.URLError) as error:
                print(f"  {label}: {error}; continuing from {have / 1e6:.0f} MB", file=sys.stderr)
                time.sleep(2**attempt)
                continue
        if os.path.getsize(part) == size and sha256(part) == digest:
            os.replace(part, target)
            return
        if os.path.getsize(part) >= size:
            print(f"  {label}: checksum does not match, downloading again", file=sys.stderr)
            os.remove(part)
    sys.exit(f"{label} could not be downloaded; run the same command again to continue where it stopped")


def wanted(name):
    """Libraries and headers; no Python code and no static archives."""
    return name == "torch/version.py" or name.startswith(("torch/lib/", "torch/include/", "nvidia/")) and not name.endswith((".a", ".py"))


def unpack(wheel, cache, package):
    temporary = os.path.join(cache, f".unpack-{package}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if wanted(member.filename) and ".." not in member.filename.split("/"):
                archive.extract(member, temporary)
    for folder, _, files in os.walk(temporary):
        inside = os.path.relpath(folder, temporary)
        os.makedirs(os.path.join(cache, inside), exist_ok=True)
        for file in files:
            os.replace(os.path.join(folder, file), os.path.join(cache, inside, file))
    shutil.rmtree(temporary, ignore_errors=True)


def fetch(web, index, entry, cache):
    arch = platform.machine()
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(arch.lower(), arch)
    if arch not in entry:
        sys.exit(f"there is no {entry['package']} {entry['version']} for {arch}")
    file = entry[arch]
    stamp = os.path.join(cache, f".{entry['package']}-{entry['version']}.done")
    if os.path.exists(stamp):
        return
    wheels = os.path.join(cache, "wheels")
    os.makedirs(wheels, exist_ok=True)
    target = os.path.join(wheels, file["file"])
    if not os.path.exists(target):
        url = find_url(web, index, entry["package"], file["file"])
        download(web, url, target, file["size"], file["sha256"], f"{entry['package']} {entry['version']}")
    unpack(target, cache, entry["package"])
    with open(stamp, "w") as done:
        done.write(file["sha256"] + "\n")
    os.remove(target)


def main():
    with open(sys.argv[1]) as text:
        pinned = json.load(text)
    group, cache = sys.argv[2], sys.argv[3]
    os.makedirs(cache, exist_ok=True)
    lock = open(os.path.join(cache, ".lock"), "w")
    fcntl.flock(lock, fcntl.LOCK_EX)  # another checkout may be setting up at the same moment
    web, index = opener(), pip_setting("index-url") or default_index()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda entry: fetch(web, index, entry, cache), pinned[group]))


main()
