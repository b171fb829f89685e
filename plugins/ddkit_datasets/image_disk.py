"""Images that stay on disk and are decoded when they are asked for."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from ddkit_datasets.image_content import content
from ddkit_datasets.image_decode import Form, decode
from ddkit_datasets.image_files import Files


class DiskImages:
    """An image source for what memory does not hold."""

    def __init__(self, base: Path, files: Files, form: Form, device: torch.device | str = "cpu"):
        """Take the files, named relative to `base`, and a form that fixes resolution and channels.

        Nothing is decoded yet, so a damaged file is found when it is fetched.
        """
        self.base = base
        self.files = files
        self.form = form
        self.device = torch.device(device)
        self.labels = files.classes
        self._fingerprint: str | None = None

    def fetch(self, index: Tensor) -> Tensor:
        """Return uint8 [n,C,H,W] for int64 `index` [n].

        Raises:
            DataError: a file is missing or damaged.
        """
        paths = [self.files.paths[row] for row in index.tolist()]
        return decode(paths, self.form).to(self.device)

    def to(self, device: torch.device) -> DiskImages:
        moved = DiskImages(self.base, self.files, self.form, device)
        moved._fingerprint = self._fingerprint
        return moved

    def fingerprint(self) -> str:
        """Return a hash of the files' names, labels and bytes, and of the form.

        Raises:
            DataError: a file cannot be read.
        """
        if self._fingerprint is None:
            text = content(self.base, self.files) + repr(self.form)
            self._fingerprint = blake2b(text.encode(), digest_size=16).hexdigest()
        return self._fingerprint
