"""HTTP that more than one kind of work needs: header fields, checksums, large files as streams."""
