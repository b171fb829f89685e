"""Built-in datasets, one file each, found through entry points like anybody's."""
