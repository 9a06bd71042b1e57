"""The one door to disk: whole files or nothing, synced appends, folders, digests and locks.

A file is complete under its name or not there at all: data goes to a temporary file in the same
folder, is flushed and synced, renamed, and the folder is synced. Nothing else in the package
opens a file for writing. What is in here knows nothing of runs, and of tensors only that the weight
files on one short list hold them (``listed.py``).
"""

from cifar_lab.storage.files import (
    append_line,
    cut_half_line,
    digest,
    disk_errors,
    finish_partial,
    free_bytes,
    keep_lines,
    open_log,
    open_partial,
    read_json,
    read_lines,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
    write_pieces,
    write_text,
)
from cifar_lab.storage.folders import (
    is_leftover,
    make_folder,
    publish_folder,
    remove_folder,
    remove_leftovers,
    replace_folder,
    set_aside,
)
from cifar_lab.storage.listed import LISTED, read_listed
from cifar_lab.storage.locks import LOCK_NAME, FolderLock, is_locked

__all__ = [
    "LISTED",
    "LOCK_NAME",
    "FolderLock",
    "append_line",
    "cut_half_line",
    "digest",
    "disk_errors",
    "finish_partial",
    "free_bytes",
    "is_leftover",
    "is_locked",
    "keep_lines",
    "make_folder",
    "open_log",
    "open_partial",
    "publish_folder",
    "read_json",
    "read_lines",
    "read_listed",
    "remove_folder",
    "remove_leftovers",
    "replace_folder",
    "set_aside",
    "sha256_bytes",
    "sha256_file",
    "write_bytes",
    "write_json",
    "write_pieces",
    "write_text",
]
