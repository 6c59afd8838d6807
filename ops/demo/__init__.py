"""A small web site of drawings, its crawl and its model, on which the whole pipeline runs."""
