"""Built-in regularizers, one file each, found through entry points like anybody's."""
