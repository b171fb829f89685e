"""Built-in methods, one file each, found through entry points like anybody's."""
