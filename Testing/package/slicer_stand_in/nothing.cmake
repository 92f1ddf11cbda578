# Included where Slicer would include its own CMake files; there is nothing to do in a test.
