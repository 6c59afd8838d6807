"""`pairmill web knn`: nearest neighbours over HTTP, by clip-retrieval's API."""
