"""Pages: progress, what a release holds, nearest neighbours, and the queue for its admin."""
