"""What systems, file managers and network disks leave in folders: neither images nor classes."""

from __future__ import annotations

# Lower case, for some of these systems do not tell cases apart. Names that could be a class, such
# as "recycled", are not among them.
_NAMES = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),  # Windows
        *("$recycle.bin", "system volume information", "found.000"),
        *("__macosx", "icon\r", "network trash folder", "temporary items"),  # macOS
        *("lost+found", "lost.dir"),  # ext4, Android
        *("@eadir", "@tmp", "#recycle", "#snapshot"),  # Synology
        *("@recycle", "@recently-snapshot", "@__thumb", ".@__thumb"),  # QNAP
        *("~snapshot", "__pycache__"),
    }
)


def is_litter(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or a system's own."""
    return name.startswith(".") or name.casefold() in _NAMES
