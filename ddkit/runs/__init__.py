"""What a run leaves on the disk: its folder, the hash of whose run it is, parts of its state.

`folder` knows the files, their digests and who works on them, `identity` tells two runs apart and
in words, and `parts` keeps what is large and did not change in files named after their content.
"""
