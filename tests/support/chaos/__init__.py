"""Chaos: a line at work on a server of its own, faults from a seeded generator, then the books.

Two kinds of processes work: clients, which make the calls of extract, download and score workers
without a web or a model, in odd orders and at odd times; and real workers, whose wall clock can be
moved. The seed decides which faults come in which order; what they meet is the machine's.
"""
