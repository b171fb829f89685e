"""What is done with sets that are there: a picture, a folder of images, several joined to one.

`grid` draws a row for each class, `export` writes class folders that every reader of image folders
labels alike, and `merge` joins sets by the names of their classes.
"""
