"""Built-in backbones, one file each, found through entry points like anybody's."""
