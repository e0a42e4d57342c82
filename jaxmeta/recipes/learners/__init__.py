"""The recipes of the library's learners, one file each; a name leads to its file."""
